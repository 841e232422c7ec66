"""
`python -m kyb.doctor.cudacopy CARDS`: pinned copies to and from each card, as one line of JSON.

Called by: `rates`, as a program. Through the driver's own library, so that nothing else is needed.
Rule: takes a quarter of a GiB of a card, and a context (about 0.5 GiB) for a second.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p

SIZE = 256 << 20
TIMES = 8


class CudaFailed(Exception):
    """The driver said no; its own word for it."""


def main() -> int:
    """Exit status 1, with a sentence, where it cannot be measured."""
    try:
        into, out_of = zip(*(_card(n) for n in range(int(sys.argv[1]))), strict=True)
    except (CudaFailed, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps({"into": min(into), "out_of": min(out_of)}))
    return 0


def _card(number: int) -> tuple[float, float]:
    """Bytes a second to it and from it. Raises CudaFailed, OSError."""
    cuda = _Driver()
    cuda.do("cuInit", 0)
    device, context = c_int(), c_void_p()
    cuda.do("cuDeviceGet", byref(device), number)
    cuda.do("cuDevicePrimaryCtxRetain", byref(context), device)
    try:
        cuda.do("cuCtxSetCurrent", context)
        return _rates(cuda)
    finally:
        cuda.do("cuDevicePrimaryCtxRelease_v2", device)


def _rates(cuda: "_Driver") -> tuple[float, float]:
    pinned, there = c_void_p(), c_uint64()
    cuda.do("cuMemAllocHost_v2", byref(pinned), c_size_t(SIZE))
    cuda.do("cuMemAlloc_v2", byref(there), c_size_t(SIZE))
    into = _timed(lambda: cuda.do("cuMemcpyHtoD_v2", there, pinned, c_size_t(SIZE)))
    out_of = _timed(lambda: cuda.do("cuMemcpyDtoH_v2", pinned, there, c_size_t(SIZE)))
    cuda.do("cuMemFree_v2", there)
    cuda.do("cuMemFreeHost", pinned)
    return into, out_of


def _timed(copy: Callable[[], None]) -> float:
    copy()  # the first one waits for clocks to rise
    started = time.monotonic()
    for _ in range(TIMES):
        copy()
    return SIZE * TIMES / (time.monotonic() - started)


class _Driver:
    """libcuda, with its errors as CudaFailed."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def do(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            word = c_char_p()
            self._library.cuGetErrorName(code, byref(word))
            raise CudaFailed(f"{name}: {(word.value or b'?').decode()}")


if __name__ == "__main__":
    sys.exit(main())
