#!/usr/bin/env bash
# Builds the Dockerfile and runs both levels in it: read-only root and input, a user nobody knows, no capability, no
# network, no home, no /tmp. See common.sh.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
folder=$(realpath "$1")
work=$(mktemp -d)
daemon=
runtime=
tag=bids_app:test-$$ # in an engine of ours always the same, so that the layers stay in its cache

clean_up() {
  status=$?
  trap - EXIT
  set +e
  if [ -n "$runtime" ]; then
    [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon"; } # it may be over already
    kill "$runtime" 2>/dev/null && wait "$runtime"
    umount -q "$work"/exec/netns/* 2>/dev/null
  else
    docker image rm -f "$tag" "$tag-build" >/dev/null 2>&1
  fi
  rm -rf "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Whether there is an engine, and it has or gets the base image.
engine_serves() {
  docker info >/dev/null 2>&1 || return 1
  docker image inspect "$base" >/dev/null 2>&1 || timeout 120 docker pull -q "$base" >/dev/null 2>&1
}

# wait_for SECONDS PROCESS COMMAND...: until the command succeeds; fails when the process or the time is over.
wait_for() {
  local until=$((SECONDS + $1)) process=$2
  while ! "${@:3}" >/dev/null 2>&1; do
    kill -0 "$process" 2>/dev/null && [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.5
  done
}

# A containerd in a folder of ours. dockerd would start one too, but gives it 15 seconds, and on a busy disk it takes more.
start_runtime() {
  mkdir -p "$work/containerd"
  cat >"$work/containerd.toml" <<END
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
END
  containerd --config "$work/containerd.toml" --root "$cache/containerd" --state "$work/containerd" \
    --address "$work/containerd.sock" >"$work/containerd.log" 2>&1 </dev/null 9>&- &
  runtime=$!
  wait_for 600 "$runtime" ctr --address "$work/containerd.sock" version ||
    impossible "containerd does not start here: $(tail -1 "$work/containerd.log")"
}

# An engine in a folder of ours, with layers kept in the cache. It makes no networks: builds use this machine's.
start_engine() {
  open_cache docker
  install_program dockerd docker.io
  start_runtime
  export DOCKER_HOST=unix://$work/docker.sock
  export DOCKER_BUILDKIT=0 # the classic builder, which asks no registry about an image that is there
  local flags=(--host "$DOCKER_HOST" --exec-root "$work/exec" --pidfile "$work/pid" --bridge=none --iptables=false)
  flags+=(--ip6tables=false --ip-forward=false --ip-masq=false --containerd "$work/containerd.sock")
  local driver
  for driver in overlay2 vfs; do
    dockerd "${flags[@]}" --data-root "$cache/docker-$driver" --storage-driver="$driver" >"$work/log" 2>&1 </dev/null 9>&- &
    daemon=$!
    tag=bids_app:test
    wait_for 300 "$daemon" docker info && return
    { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    daemon=
  done
  impossible "dockerd does not start here: $(tail -1 "$work/log")"
}

if ! engine_serves; then
  may_start "no Docker engine that has or gets $base"
  start_engine
  timeout 120 docker pull -q "$base" 2>/dev/null || {
    make_standin
    docker load -q -i "$standin"
  }
fi
echo "docker $(docker version -f '{{.Server.Version}}'), base $(docker image inspect -f '{{.Id}} {{.Size}} bytes' "$base")"

started=$SECONDS
build() {
  docker build --network=host "$@" "$repository" >"$work/build.log" 2>&1 || {
    tail -30 "$work/build.log"
    fail "docker build"
  }
}
build -t "$tag-build" --target build
build -t "$tag"
if [ -n "$daemon" ]; then # what older runs of ours left in the cache
  docker container prune -f >/dev/null
  docker image prune -f >/dev/null
fi
bytes=$(docker image inspect -f '{{.Size}}' "$tag")
echo "docker build: $((SECONDS - started)) s, image: $bytes bytes"
[ "$bytes" -lt 1000000000 ] || fail "the image has 1 GB or more"

# a number that neither this machine nor the image knows; who is not root can later remove only files of their own
user=12345
[ "$(id -u)" = 0 ] || user=$(id -u)
install -d -m 777 "$folder/scans/out" "$folder/made"
chmod -R a+rwX "$folder/cohort/out"
walls=(docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --network none --user "$user:$user")
walls+=(--volume "$folder/scans/bids:/scans:ro" --volume "$folder/scans/out:/out")
walls+=(--volume "$folder/cohort/bids:/cohort:ro" --volume "$folder/cohort/out:/maps" --volume "$folder/made:/made")
walls+=(--entrypoint env "$tag" --unset=HOME)

"${walls[@]}" bash -s "$user" <"$here/walls.sh" || fail "a wall is missing"
"${walls[@]}" bids_app --version
"${walls[@]}" bids_app --help >/dev/null
"${walls[@]}" python -m bids_app.phantom /made/bids --participants 1 --spacing 3 3 6
started=$SECONDS
"${walls[@]}" bids_app /scans /out participant --nprocs 2
echo "docker participant level: $((SECONDS - started)) s"
started=$SECONDS
"${walls[@]}" bids_app /cohort /maps group "${group_options[@]}"
echo "docker group level: $((SECONDS - started)) s"
