#!/bin/bash
# Everything that needs a GPU, on a machine that has one: figures and output go to OUT.
# Usage, from the repository's root: OUT=folder benchmarks/device/run.sh [arguments of benchmarks.parking]
set -euo pipefail
OUT=${OUT:-.}
POOL=${POOL:-/mnt/kyb-bench}
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

# A tmpfs of our own: /dev/shm may be small, and huge pages are pinned faster.
if [ "$(id -u)" = 0 ] && ! mountpoint -q "$POOL"; then
  mkdir -p "$POOL" && mount -t tmpfs -o size=90%,huge=within_size tmpfs "$POOL"
fi
mkdir -p "$POOL"
{
  nvidia-smi --query-gpu=name,driver_version,memory.total,pcie.link.gen.current --format=csv
  uname -r; python3 --version; grep -h . /sys/kernel/mm/transparent_hugepage/{enabled,shmem_enabled}
} | tee "$OUT/machine.txt"
# What has to be right, before how fast it is. TESTS=0: only the figures.
if [ "${TESTS:-1}" != 0 ]; then
  # Without the conftest of all tests, which wants more packages than a GPU machine may have.
  python3 -m pytest -q -m gpu tests/guest/test_*_real_gpu.py --confcutdir=tests/guest \
    -p no:cacheprovider 2>&1 | tee "$OUT/tests.txt" ||
    echo "not all of it is right: see tests.txt"
fi
python3 -m benchmarks.parking --folder "$POOL/bench" --json "$OUT/parking.json" "$@" 2>&1 | tee "$OUT/parking.txt"
