# shellcheck shell=bash
# Runs inside a container, `bash -s UID`: fails unless every wall stands.
set -u
failed=0

wall() {
  if ! "${@:2}"; then
    echo "no wall: $1"
    failed=1
  fi
}
cannot_write() { ! touch "$1/x" 2>/dev/null; }
only_loopback() { [ "$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ')" = lo ]; }
no_capability() { grep -q '^CapEff:[[:space:]]*0*$' /proc/self/status; }
no_compiler() { ! command -v cc gcc g++ clang ld pip >/dev/null; }

wall "the input can be written to" cannot_write /scans
wall "the app can be written to" cannot_write /opt/app
wall "/etc can be written to" cannot_write /etc
wall "there is a network" only_loopback
wall "there are capabilities" no_capability
wall "there is a compiler or an installer" no_compiler
wall "the user is not $1" [ "$(id -u)" = "$1" ]
exit $failed
