#!/usr/bin/env bash
# Builds Singularity.def as an ordinary user and runs both levels in it, as on a cluster: contained, without home, network
# and capabilities, with 64 MB of /tmp. See common.sh.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
folder=$(realpath "$1")
work=$(mktemp -d /var/tmp/apptainer.XXXXXX) # /tmp may be memory, and an image unpacks to more than that may hold
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work"/{cache,tmp,source}

# as of this machine's Apptainer; `make_root` changes them
root=
user=$(id -u)
inside_work=$work
inside_folder=$folder

# Runs Apptainer: this machine's, or that of `root`. There it runs as an ordinary user, with `root` as the root of a mount
# namespace of its own: as root or by chroot it does not work. The mounts go with the namespace's last process.
apptainer_() {
  if [ -z "$root" ]; then
    (cd "$work/source" && APPTAINER_CACHEDIR=$work/cache APPTAINER_TMPDIR=$work/tmp apptainer "$@")
    return
  fi
  # shellcheck disable=SC2016  # for the inner shell to fill in
  ROOT=$root WORK=$work FOLDER=$folder NUMBER=$user unshare --mount --propagation slave -- bash -ec '
    mount --bind "$ROOT" "$ROOT"
    for place in proc sys dev; do mount --rbind "/$place" "$ROOT/$place"; done
    mount -t tmpfs tmpfs "$ROOT/run"
    mkdir -p "$ROOT/work" "$ROOT/folder" "$ROOT/.old"
    mount --bind "$WORK" "$ROOT/work"
    mount --bind "$FOLDER" "$ROOT/folder"
    cp /etc/resolv.conf "$ROOT/etc/resolv.conf"
    cd "$ROOT"
    pivot_root . .old
    umount -l /.old
    cd /work/source
    exec setpriv --reuid "$NUMBER" --regid "$NUMBER" --clear-groups env --ignore-environment \
      PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/home/app TERM=dumb LANG=C.UTF-8 \
      APPTAINER_CACHEDIR=/work/cache APPTAINER_TMPDIR=/work/tmp apptainer "$@"' apptainer "$@" 9>&-
}

# Whether there is an Apptainer, and it gets the base image, which then stays in its cache for the build.
engine_serves() {
  apptainer_ version >/dev/null 2>&1 && apptainer_ pull "$inside_work/base.sif" "docker://$base" >/dev/null 2>&1
}

# An Apptainer of our own, from Debian's unstable release: the stable one has none.
make_root() {
  open_cache apptainer
  local made=$cache/apptainer-root
  if [ ! -x "$made/usr/bin/apptainer" ]; then
    install_program mmdebstrap mmdebstrap
    rm -rf "$made.part"
    mmdebstrap --quiet --variant=minbase --include=apptainer --aptopt='Acquire::Check-Valid-Until "false"' sid \
      "$made.part" "$DEBIAN_MIRROR" >"$cache/apptainer.log" 2>&1 ||
      impossible "Debian's apptainer cannot be had: $(tail -1 "$cache/apptainer.log")"
    echo '127.0.0.1 localhost' >"$made.part/etc/hosts"
    chroot "$made.part" useradd --uid 12345 --create-home app
    mv "$made.part" "$made"
  fi
  root=$made
  user=12345 # a number that the image does not know
  inside_work=/work
  inside_folder=/folder
  chown -R "$user:$user" "$work"
  apptainer_ version >"$cache/apptainer.log" 2>&1 ||
    impossible "our own Apptainer does not start: $(tail -1 "$cache/apptainer.log")"
}

if ! engine_serves; then
  may_start "no Apptainer that gets $base"
  make_root
  engine_serves || make_standin
fi
echo "apptainer $(apptainer_ version)"

# what the definition copies; with a stand-in, two lines at its head say where the base is
mapfile -t copied < <(awk '/^%/ {here = $1 == "%files"; next} here && NF {print $1}' "$repository/Singularity.def")
tar -C "$repository" --exclude=__pycache__ -cf - Singularity.def "${copied[@]}" | tar -C "$work/source" --no-same-owner -xf -
if [ -n "${standin:-}" ]; then
  cp "$standin" "$work/base.tar"
  sed -E -i "s#^Bootstrap: .*#Bootstrap: docker-archive#; s#^From: .*#From: $inside_work/base.tar#" "$work/source/Singularity.def"
fi

# an image of the same sources is the same image: only then one from the cache will do
key=$(cd "$work" && find source -type f -exec sha256sum {} + | sort | cat - <(echo "${standin:-}") | sha256sum | cut -c1-16)
kept=$cache/app-$key.sif
mkdir -p "$cache"
if [ -s "$kept" ]; then
  echo "apptainer build: none, $kept is of the same sources"
else
  chown -R "$user" "$work"
  started=$SECONDS
  apptainer_ --quiet build "$inside_work/app.sif" Singularity.def >"$work/build.log" 2>&1 || {
    grep -v rootless "$work/build.log" | tail -30
    fail "apptainer build"
  }
  echo "apptainer build: $((SECONDS - started)) s"
  rm -f "$cache"/app-*.sif
  chown "$(id -u)" "$work/app.sif"
  mv "$work/app.sif" "$kept"
fi
ln "$kept" "$work/app.sif" 2>/dev/null || cp "$kept" "$work/app.sif"
bytes=$(stat -c %s "$work/app.sif")
echo "apptainer image: $bytes bytes"
[ "$bytes" -lt 1000000000 ] || fail "the image has 1 GB or more"

mkdir -p "$folder/scans/out" "$folder/made"
chown -R "$user" "$folder"/{scans/out,cohort/out,made}
walls=(--containall --no-home --cleanenv --pwd / --drop-caps all --net --network none)
walls+=(--bind "$inside_folder/scans/bids:/scans:ro" --bind "$inside_folder/scans/out:/out")
walls+=(--bind "$inside_folder/cohort/bids:/cohort:ro" --bind "$inside_folder/cohort/out:/maps" --bind "$inside_folder/made:/made")
inside() { apptainer_ --silent exec "${walls[@]}" "$inside_work/app.sif" "$@"; }

inside bash -s "$user" <"$here/walls.sh" || fail "a wall is missing"
apptainer_ --silent test "${walls[@]}" "$inside_work/app.sif"
apptainer_ run-help "$inside_work/app.sif"
inside python -m bids_app.phantom /made/bids --participants 1 --spacing 3 3 6
started=$SECONDS
apptainer_ --silent run "${walls[@]}" "$inside_work/app.sif" /scans /out participant --nprocs 2
echo "apptainer participant level: $((SECONDS - started)) s"
started=$SECONDS
apptainer_ --silent run "${walls[@]}" "$inside_work/app.sif" /cohort /maps group "${group_options[@]}"
echo "apptainer group level: $((SECONDS - started)) s"
