"""
Bounds for whatever is sealed to a disk and had back: the disk's own rates, and a core's.

Called by: benchmarks of tiers. Rates in bytes a second.
"""

import json
import mmap
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kybernate.artifacts import chunks
from kybernate.artifacts.chunks import DomainKey
from kybernate.stores import pages

_BLOCK, _DEPTH = 4 * 2**20, 8  # as the store asks its disk


def raw_name() -> str:
    """What measured them."""
    return "fio" if shutil.which("fio") else "pwrite"


def raw(path: Path, size: int) -> dict[str, float]:
    """The disk's own rates."""
    small = [memoryview(mmap.mmap(-1, _BLOCK)) for _ in range(_DEPTH)]
    huge = [pages.taken(_BLOCK) for _ in range(_DEPTH)]
    try:
        found = _fio(path, size) if shutil.which("fio") else _pwrite(path, size, small)
        path.unlink()
        of_huge = _pwrite(path, size, huge)
        return found | {f"{name}, huge pages": rate for name, rate in of_huge.items()}
    finally:
        path.unlink(missing_ok=True)


def _fio(path: Path, size: int) -> dict[str, float]:
    found = {}
    for way in ("write", "read"):
        words = [f"--filename={path}", f"--size={size}", f"--rw={way}", f"--bs={_BLOCK}",
                 f"--iodepth={_DEPTH}", "--ioengine=libaio", "--direct=1", "--end_fsync=1",
                 "--name=raw", "--output-format=json"]  # fmt: skip
        done = subprocess.run(["fio", *words], capture_output=True, text=True, check=True)
        found[f"raw {way}"] = float(json.loads(done.stdout)["jobs"][0][way]["bw_bytes"])
    return found


def _pwrite(path: Path, size: int, rooms: list[memoryview]) -> dict[str, float]:
    for room in rooms:
        room[:] = os.urandom(_BLOCK)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    ats = range(0, size, _BLOCK)
    try:
        with ThreadPoolExecutor(_DEPTH) as threads:
            began = time.perf_counter()
            os.posix_fallocate(fd, 0, size)
            list(threads.map(lambda at: os.pwrite(fd, rooms[at // _BLOCK % _DEPTH], at), ats))
            os.fsync(fd)
            wrote = time.perf_counter() - began
            began = time.perf_counter()
            list(threads.map(lambda at: os.preadv(fd, [rooms[at // _BLOCK % _DEPTH]], at), ats))
            return {"raw write": size / wrote, "raw read": size / (time.perf_counter() - began)}
    finally:
        os.close(fd)


def core_rate(size: int) -> float:
    """Bytes a second of processor time that one core names and seals, in chunks of this size."""
    key, content = DomainKey(os.urandom(32)), os.urandom(size)
    room = memoryview(bytearray(size + chunks.TAG))
    done, began = 0, time.process_time()
    while time.process_time() - began < 1.0:
        key.seal(key.name(content), content, room)
        done += size
    return done / (time.process_time() - began)
