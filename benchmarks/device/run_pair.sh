#!/bin/bash
# What needs two GPUs, on a machine that has them: figures and output go to OUT, as they come.
# Usage, from the repository's root: OUT=folder benchmarks/device/run_pair.sh [arguments of benchmarks.pairs]
set -euo pipefail
OUT=${OUT:-.}
POOL=${POOL:-/mnt/kyb-bench}
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
# NVLink multicast can put a host's GPUs out of service, and cannot be parked.
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 NVSHMEM_DISABLE_NVLS=1

if [ "$(id -u)" = 0 ] && ! mountpoint -q "$POOL"; then
  mkdir -p "$POOL" && mount -t tmpfs -o "size=${POOL_SIZE:-90%},huge=within_size" tmpfs "$POOL"
fi
mkdir -p "$POOL"
{
  nvidia-smi --query-gpu=name,driver_version,memory.total,pcie.link.gen.current --format=csv
  nvidia-smi topo -m || true
  uname -r; python3 --version; grep -h . /sys/kernel/mm/transparent_hugepage/{enabled,shmem_enabled}
} | tee "$OUT/machine.txt"
if [ "${TESTS:-1}" != 0 ]; then
  timeout 120 python3 -m pytest -q -m gpu tests/guest/test_jobs_on_two_real_gpus.py -p no:cacheprovider 2>&1 |
    tee "$OUT/tests.txt" || echo "not all of it is right: see tests.txt"
fi
python3 -m benchmarks.pairs --folder "$POOL/bench" --results "$OUT/pairs-so-far.json" "$@" 2>&1 |
  tee "$OUT/pairs.txt"
tail -n 1 "$OUT/pairs.txt" > "$OUT/pairs.json"
