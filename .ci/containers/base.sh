#!/usr/bin/env bash
# base.sh IMAGE ARCHIVE: makes a stand-in for a Debian image from this machine's Debian mirror, as `docker save` writes it.
#
# For engines that a test started, where no registry can be reached. It also carries this machine's certificates for pip,
# so that the Dockerfile and Singularity.def need not know of any.
set -euo pipefail
image=$1
archive=$2
suite=${image#debian:}
suite=${suite%-slim}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

options=(--variant=minbase --aptopt='Acquire::Check-Valid-Until "false"')
options+=(--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright')
options+=(--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*')
# as in Debian's own images, neither packages nor their index stay
options+=(--aptopt='Dir::Cache::pkgcache ""' --aptopt='Dir::Cache::srcpkgcache ""')
options+=(--aptopt='DPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb || true";}')
certificates=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-${SSL_CERT_FILE:-}}}
if [ -f "$certificates" ]; then
  printf '[global]\ncert = /etc/ssl/of-this-machine.crt\n' >"$work/pip.conf"
  # shellcheck disable=SC2016  # $1 is for mmdebstrap to fill in: the new root
  options+=(--customize-hook='mkdir -p "$1/etc/ssl"' --customize-hook="upload $work/pip.conf /etc/pip.conf")
  options+=(--customize-hook="upload $certificates /etc/ssl/of-this-machine.crt")
fi
mkdir "$work/image"
mmdebstrap --quiet "${options[@]}" "$suite" "$work/image/layer.tar" "$DEBIAN_MIRROR"

sum=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)
cat >"$work/image/config.json" <<END
{"architecture": "$(dpkg --print-architecture)", "os": "linux", "config": {"Cmd": ["bash"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$sum"]}}
END
echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$image\"], \"Layers\": [\"layer.tar\"]}]" >"$work/image/manifest.json"
tar -C "$work/image" -cf "$archive.part" manifest.json config.json layer.tar
mv "$archive.part" "$archive"
