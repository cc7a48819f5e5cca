# shellcheck shell=bash
# Sourced by docker.sh and apptainer.sh, which build an image of the app and run it behind walls:
#
#   docker.sh FOLDER, apptainer.sh FOLDER
#
# FOLDER holds scans/bids, a raw data set for the participant level, and cohort/bids with cohort/out, tables and lesion
# maps for the group level. Outputs go to scans/out, cohort/out and made. Exit codes: 0 done, 77 skipped, else failed; the
# last line says why.
#
# REQUIRE_CONTAINERS=1       install and start an engine (as root); whatever is impossible is a failure, never a skip
# BIDS_APP_CONTAINER_CACHE   folder for what is kept from run to run (default: below /var/tmp)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
cache=${BIDS_APP_CONTAINER_CACHE:-/var/tmp/bids_app-containers-$(id -u)}
base=$(sed -nE 's/^FROM +([^ ]+).*/\1/p' "$repository/Dockerfile" | head -1)
# where this machine's apt gets its packages from
DEBIAN_MIRROR=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -1 || true)
export DEBIAN_MIRROR
# as few as show that both levels work
group_options=(--lesion-threshold 0.32 --cv-folds 3 --nested-folds 0 --refine-limit 3 --bootstrap-draws 50)

fail() {
  echo "FAIL: $1"
  exit 1
}

# Ends the script for want of an engine.
impossible() {
  [ "${REQUIRE_CONTAINERS:-}" != 1 ] || fail "$1"
  echo "SKIP: $1"
  exit 77
}

# Ends the script unless it may install and start an engine of its own.
may_start() {
  [ "${REQUIRE_CONTAINERS:-}" = 1 ] || impossible "$1; REQUIRE_CONTAINERS=1 installs and starts one"
  [ "$(id -u)" = 0 ] || impossible "$1, and to install and start one needs root"
}

# Makes the cache and waits until no other run of this script uses it. Where everybody may write, a folder that is not
# ours is not to be trusted.
open_cache() {
  mkdir -p "$cache"
  if [ ! -O "$cache" ] || [ -L "$cache" ]; then
    impossible "$cache belongs to somebody else; set BIDS_APP_CONTAINER_CACHE to a folder of yours"
  fi
  exec 9>"$cache/$1.lock"
  flock -w 1800 9 || impossible "another run has used $cache for half an hour"
}

# install PROGRAM PACKAGE: by apt, unless the program is there.
install_program() {
  if ! command -v "$1" >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$2"; } >"$cache/apt.log" 2>&1 ||
      impossible "no $1 here, and apt cannot install $2: $(tail -1 "$cache/apt.log")"
  fi
}

# Sets `standin` to an archive that stands in for the base image; made anew where its maker or the certificates changed.
make_standin() {
  local key
  key=$(cat "$here/base.sh" "${PIP_CERT:-/dev/null}" | sha256sum | cut -c1-16)
  standin=$cache/base-$key.tar
  if [ ! -s "$standin" ]; then
    install_program mmdebstrap mmdebstrap
    bash "$here/base.sh" "$base" "$standin" >"$cache/base.log" 2>&1 ||
      impossible "no registry answers, and no stand-in for $base can be made: $(tail -1 "$cache/base.log")"
  fi
  echo "no registry answers: $standin stands in for $base"
}
