"""
The CUDA driver, as far as the worker needs it; errors of the driver end here as `DriverError`.

Called by everything in this package. `Stream`, `Event` and the like are opaque. Addresses are ints.
"""

import ctypes
import importlib
from pathlib import Path
from typing import Any

from kybernate.clients.errors import Refused

OUT_OF_MEMORY = 2
NOT_READY = 600
GRAIN = 2 * 1024 * 1024
_NON_BLOCKING, _WITHOUT_TIME = 1, 2
_FIRST = -5  # of priorities; a card that has fewer takes its own first one
_POSIX_DESCRIPTOR = 1
_DEVICES = Path("/sys/bus/pci/devices")


class DriverAbsent(Refused):
    """There is no driver, or nothing to speak with it."""


class DriverError(Refused):
    """The driver refused a call. `code` is its CUresult."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed with CUDA error {code}")
        self.code = code


class Driver:
    """One context on one card: the first that CUDA_VISIBLE_DEVICES shows."""

    def __init__(self) -> None:
        """Raises DriverAbsent, DriverError."""
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.driver")
            self._do("cuInit", 0)
        except (ImportError, RuntimeError) as error:
            raise DriverAbsent(f"no CUDA driver: {error}") from error
        self.device = self._do("cuDeviceGet", 0)
        self.context = self._do("cuDevicePrimaryCtxRetain", self.device)
        self.enter()

    def enter(self) -> None:
        """Make the context the calling thread's."""
        self._do("cuCtxSetCurrent", self.context)

    def uuid(self) -> bytes:
        """The card's, 16 bytes."""
        return bytes(self._do("cuDeviceGetUuid", self.device).bytes)

    def free_bytes(self) -> int:
        """Of the card, now."""
        free, _ = self._do("cuMemGetInfo")
        return int(free)

    def stream(self) -> Any:
        """One that does not wait for the others."""
        return self._do("cuStreamCreate", _NON_BLOCKING)

    def urgent_stream(self) -> Any:
        """Another one, whose kernels go first."""
        return self._do("cuStreamCreateWithPriority", _NON_BLOCKING, _FIRST)

    def wait(self, stream: Any) -> None:
        """Until all of a stream is done."""
        self._do("cuStreamSynchronize", stream)

    def after(self, later: Any, earlier: Any) -> None:
        """What comes on `later` from now on waits for what is on `earlier` now."""
        event = self._do("cuEventCreate", _WITHOUT_TIME)
        self._do("cuEventRecord", event, earlier)
        self._do("cuStreamWaitEvent", later, event, 0)
        self._do("cuEventDestroy", event)

    def reserve(self, size: int) -> int:
        """Addresses without memory."""
        return int(self._do("cuMemAddressReserve", size, 0, 0, 0))

    def unreserve(self, at: int, size: int) -> None:
        """Give addresses back."""
        self._do("cuMemAddressFree", at, size)

    def map_shared(self, descriptor: int, at: int, size: int) -> None:
        """Put another process's memory at an address. The mapping alone keeps it."""
        kinds = self._cuda.CUmemAllocationHandleType
        handle = self._do("cuMemImportFromShareableHandle", descriptor, kinds(_POSIX_DESCRIPTOR))
        try:
            self._do("cuMemMap", at, size, 0, handle, 0)
        finally:
            self._do("cuMemRelease", handle)

    def allow(self, at: int, size: int) -> None:
        """Let this card read and write mapped memory."""
        access = self._cuda.CUmemAccessDesc()
        access.location.type = self._cuda.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        access.location.id = int(self.device)
        access.flags = self._cuda.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        self._do("cuMemSetAccess", at, size, [access], 1)

    def unmap(self, at: int, size: int) -> None:
        """Take a mapping away."""
        self._do("cuMemUnmap", at, size)

    def allocate(self, size: int) -> int:
        """Memory of our own on the card."""
        return int(self._do("cuMemAlloc", size))

    def free(self, at: int) -> None:
        """Give it back."""
        self._do("cuMemFree", at)

    def pin(self, at: int, size: int) -> None:
        """Let the card copy from and to host memory by itself."""
        self._do("cuMemHostRegister", at, size, 0)

    def unpin(self, at: int) -> None:
        """No more."""
        self._do("cuMemHostUnregister", at)

    def copy_out(self, to: int, at: int, size: int, stream: Any) -> None:
        """From the card to host memory, some time."""
        self._do("cuMemcpyDtoHAsync", to, at, size, stream)

    def copy_in(self, at: int, source: int, size: int, stream: Any) -> None:
        """From host memory to the card, some time."""
        self._do("cuMemcpyHtoDAsync", at, source, size, stream)

    def set_zero(self, at: int, size: int, stream: Any) -> None:
        """Zeros in the card's memory, some time."""
        self._do("cuMemsetD8Async", at, 0, size, stream)

    def numa_node(self) -> int:
        """The NUMA node of the card's bus; -1 where that cannot be told."""
        try:
            bus = self._do("cuDeviceGetPCIBusId", 16, self.device)
            name = bytes(bus).split(b"\0")[0].decode("ascii").lower()
            return int((_DEVICES / name / "numa_node").read_text())
        except (DriverError, RuntimeError, OSError, ValueError):
            return -1

    def kernel(self, image: bytes, name: bytes) -> Any:
        """A kernel out of PTX, which the driver compiles for its card."""
        module = self._do("cuModuleLoadData", image)
        return self._do("cuModuleGetFunction", module, name)

    def launch(self, kernel: Any, blocks: int, threads: int, stream: Any, *values: Any) -> None:
        """Start a kernel; `values` are its arguments as ctypes."""
        pointers = (ctypes.c_void_p * len(values))(
            *(ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values)
        )
        where = ctypes.addressof(pointers)
        self._do("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, stream, where, 0)

    def lock_process(self, pid: int, milliseconds: int) -> None:
        """The driver's own lock: drains a process and holds its next call."""
        how = self._cuda.CUcheckpointLockArgs()
        how.timeoutMs = milliseconds
        self._do("cuCheckpointProcessLock", pid, how)

    def unlock_process(self, pid: int) -> None:
        """Let it go on."""
        self._do("cuCheckpointProcessUnlock", pid, None)

    def _do(self, name: str, *arguments: Any) -> Any:
        error, *results = getattr(self._cuda, name)(*arguments)
        if int(error):
            raise DriverError(name, int(error))
        return results[0] if len(results) == 1 else tuple(results)
