#!/bin/bash
# A TPU pod slice through gcloud: makes it if need be, copies the clone's HEAD, installs,
# mounts the shared folder and trains on all workers. From the clone:
#
#   NAME=pod ZONE=us-east5-b TYPE=v5litepod-64 NFS=10.0.0.2:/runs launch/tpu_pod.sh --config=configs/siglip_b16.py --workdir=/runs/b16
#
# NFS is a Filestore share, mounted at /runs: the workdir is one that all workers see.
# VERSION is the TPU software (default v2-alpha-tpuv5-lite), SPOT=1 asks for a spot
# slice, DATA goes to the workers as $DATA. JAX asks the slice who is who. The slice is
# yours until: gcloud compute tpus tpu-vm delete "$NAME" --zone="$ZONE"
set -euo pipefail
: "${NAME:?names the slice}" "${ZONE:?its zone}" "${TYPE:?its kind}" "${NFS:?HOST:/SHARE}"

tpu() { gcloud compute tpus tpu-vm "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
on_all() { tpu ssh --worker=all --command="$1"; }

if ! tpu describe >/dev/null 2>&1; then
  tpu create --accelerator-type="$TYPE" --version="${VERSION:-v2-alpha-tpuv5-lite}" \
    ${SPOT:+--spot}
fi

code=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$code"' EXIT
git archive --format=tar.gz --output="$code" HEAD
gcloud compute tpus tpu-vm scp "$code" "$NAME:big_mm.tar.gz" --zone="$ZONE" --worker=all
on_all 'set -e
mkdir -p big_mm && tar -xzf big_mm.tar.gz -C big_mm && cd big_mm
test -d .venv || curl -LsSf https://astral.sh/uv/install.sh | sh
test -d .venv || ~/.local/bin/uv venv --python=3.11
~/.local/bin/uv pip install --quiet --editable ".[tpu]"'
on_all "mountpoint -q /runs || { sudo apt-get install -y -q nfs-common &&
sudo mkdir -p /runs && sudo mount $(printf %q "$NFS") /runs && sudo chmod 777 /runs; }"
on_all "cd big_mm && DATA=$(printf %q "${DATA:-}") .venv/bin/python run.py train$(printf ' %q' "$@")"
