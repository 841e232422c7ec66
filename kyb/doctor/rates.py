"""
How fast bytes go to the cards and to the disk, measured for a few seconds.

Called by: `node`.
Rule: bounded in time and room; the file is nameless before its first byte, so nothing is left; the
cards are asked in a process of their own, so that a driver that hangs hangs alone.
"""

import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kyb.doctor.facts import Rates, Unknown

LARGEST = 4 << 30
LONGEST_S = 1.5
_BLOCK = 8 << 20
_THREADS = 4
_SPARE = 2 << 30  # room that stays free beside the file
_LEAST = 64 << 20
_BUS_LONGEST_S = 60.0  # eight contexts one after the other


def disk(folder: Path, largest: int = LARGEST, longest: float = LONGEST_S) -> Rates | Unknown:
    """Write and read back up to `largest` bytes past the page cache, each way `longest` seconds."""
    try:
        room = os.statvfs(folder)
        size = min(largest, room.f_bavail * room.f_frsize - _SPARE) // _BLOCK * _BLOCK
        if size < _LEAST:
            return Unknown(f"{folder} has no room: {_SPARE >> 30} GiB have to stay free")
        return _measured(folder, size, longest)
    except OSError as problem:
        return Unknown(f"{folder}: {problem.strerror}")


def _measured(folder: Path, size: int, longest: float) -> Rates:
    handle, name = tempfile.mkstemp(prefix=".kyb-doctor-", dir=folder)
    try:
        Path(name).unlink()
        direct = os.open(f"/proc/self/fd/{handle}", os.O_RDWR | os.O_DIRECT)
        try:
            written, into = _timed(size, longest, lambda at, b: os.pwritev(direct, [b], at), direct)
            _, out_of = _timed(written, longest, lambda at, b: os.preadv(direct, [b], at))
        finally:
            os.close(direct)
    finally:
        os.close(handle)
    return Rates(into=into, out_of=out_of)


def _timed(
    size: int, longest: float, move: Callable[[int, mmap.mmap], int], synced: int | None = None
) -> tuple[int, float]:
    """Blocks that were moved without a gap from the start, in bytes, and bytes a second."""
    started = time.monotonic()
    end = started + longest

    def lane(number: int) -> int:
        with mmap.mmap(-1, _BLOCK) as block:  # aligned to pages, as O_DIRECT wants it
            block.write(os.urandom(1 << 16) * (_BLOCK >> 16))
            moved = 0
            for at in range(number * _BLOCK, size, _THREADS * _BLOCK):
                if time.monotonic() > end and moved:
                    break
                moved += move(at, block)
            return moved

    with ThreadPoolExecutor(_THREADS) as pool:
        lanes = list(pool.map(lane, range(_THREADS)))
    if synced is not None:
        os.fsync(synced)
    whole = min(lanes) * _THREADS
    return whole or _BLOCK, sum(lanes) / (time.monotonic() - started)


def bus(cards: int) -> Rates | Unknown:
    """Pinned copies to and from each card in turn; the slowest of them."""
    argv = [sys.executable, "-m", "kyb.doctor.cudacopy", str(cards)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=_BUS_LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return Unknown(f"the driver did not answer within {_BUS_LONGEST_S:g} s")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Unknown(said[-1] if said else f"it ended with {done.returncode}")
    found = json.loads(done.stdout)
    return Rates(into=found["into"], out_of=found["out_of"])
