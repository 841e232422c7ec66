"""
`driver.py REPORT GIB [SEGMENT_MIB [HOST_MIB]]`: a program of the driver API alone, through ctypes.

Fills VRAM with random bytes, every segment with others, copies on the card without end, and
compares every byte when asked to (REPORT with the suffix .verify). Every twentieth segment gets
other contents when asked to (.change).
"""

import ctypes
import os
import sys
import time

from report import Report

_CUDA = ctypes.CDLL("libcuda.so.1")
_MIB = 2**20


def check(result: int) -> None:
    """Every call's result."""
    if result:
        raise RuntimeError(f"CUDA error {result}")


def allocate(size: int) -> ctypes.c_uint64:
    """Memory of the card."""
    at = ctypes.c_uint64()
    check(_CUDA.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(size)))
    return at


class Memory:
    """Segments full of random bytes: each begins elsewhere in one random buffer."""

    def __init__(self, total: int, size: int) -> None:
        self._size = size
        self._host = ctypes.c_void_p()
        check(_CUDA.cuMemAllocHost_v2(ctypes.byref(self._host), ctypes.c_size_t(3 * size)))
        for at in range(0, 2 * size, _MIB):
            ctypes.memmove(self._host.value + at, os.urandom(_MIB), _MIB)
        self._segments = [allocate(size) for _ in range(total // size)]
        self._salts = [0] * len(self._segments)
        for number in range(len(self._segments)):
            self._fill(number)

    def _fill(self, number: int) -> None:
        source = self._source(number)
        check(_CUDA.cuMemcpyHtoD_v2(self._segments[number], source, ctypes.c_size_t(self._size)))

    def change(self) -> None:
        """Other contents for every twentieth segment, the first one included."""
        for number in range(0, len(self._segments), 20):
            self._salts[number] += 512
            self._fill(number)

    def _source(self, number: int) -> ctypes.c_void_p:
        assert self._host.value is not None
        begin = (number * 4096 + self._salts[number]) % self._size
        return ctypes.c_void_p(self._host.value + begin)

    def wrong(self) -> int:
        """How many segments are not what was put there."""
        assert self._host.value is not None
        back = self._host.value + 2 * self._size
        count = 0
        for number, segment in enumerate(self._segments):
            check(_CUDA.cuMemcpyDtoH_v2(ctypes.c_void_p(back), segment, self._size))
            source = self._source(number).value
            count += bool(_MEMCMP(back, source, self._size))
        return count


_MEMCMP = ctypes.CDLL(None).memcmp
_MEMCMP.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_CUDA.cuMemcpyDtoH_v2.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t]


def main() -> None:
    """Until killed."""
    report = Report(sys.argv[1])
    size = int(sys.argv[3] if len(sys.argv) > 3 else 20) * _MIB
    context = ctypes.c_void_p()
    check(_CUDA.cuInit(0))
    check(_CUDA.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    check(_CUDA.cuCtxSetCurrent(context))
    of_the_host = os.urandom(int(sys.argv[4]) * _MIB) if len(sys.argv) > 4 else b""
    memory = Memory(int(float(sys.argv[2]) * 2**30), size)
    scratch, small = allocate(64 * _MIB), allocate(1000)
    check(_CUDA.cuMemsetD8_v2(small, ctypes.c_ubyte(7), ctypes.c_size_t(1000)))
    steps, wrong, verified, changed, told = 0, 0, 0, 0, 0.0
    while True:
        for _ in range(20):
            half = ctypes.c_uint64(scratch.value + 32 * _MIB)
            check(_CUDA.cuMemcpyDtoD_v2(half, scratch, ctypes.c_size_t(32 * _MIB)))
        check(_CUDA.cuCtxSynchronize())
        steps += 1
        if report.wants("change"):
            memory.change()
            changed += 1
            told = 0.0
        if report.wants("verify"):
            wrong += memory.wrong()
            verified += 1
            told = 0.0
        if time.monotonic() - told > 0.01:
            told = time.monotonic()
            report.write(steps=steps, wrong=wrong, verified=verified, changed=changed,
                         host=len(of_the_host))  # fmt: skip


if __name__ == "__main__":
    main()
