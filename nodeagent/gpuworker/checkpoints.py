"""
The driver's own lock, checkpoint, restore and unlock of another process, asked of this worker.

Called by `serving`. The states are the driver's (`CUprocessState`), and it keeps them: what was
begun goes on when this worker is killed, and the next one asks how it ended.
"""

import ctypes
import importlib
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from nodeagent.gpuworker.driver import DriverError

FIRST_DRIVER = 12080  # as cuDriverGetVersion tells: the first that has these calls
FIRST_TO_MOVE = 13000  # the first that restores onto another card
NOT_SUPPORTED = 801
_CALLS = {
    "lock": "cuCheckpointProcessLock",
    "checkpoint": "cuCheckpointProcessCheckpoint",
    "restore": "cuCheckpointProcessRestore",
    "unlock": "cuCheckpointProcessUnlock",
}


class State(IntEnum):
    """How the driver has a process."""

    RUNNING = 0
    LOCKED = 1
    CHECKPOINTED = 2
    FAILED = 3


class Checkpoints:
    """Needs no context, only a driver that was begun with."""

    def __init__(self) -> None:
        self._cuda: Any = importlib.import_module("cuda.bindings.driver")

    @property
    def operations(self) -> Mapping[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]]:
        """For the worker's table."""
        return {"process": self._process, "able": self._able}

    def _process(self, asked: dict[str, Any], _: list[int]) -> dict[str, Any]:
        """`step` of process `pid`; the state it has then. Raises DriverError."""
        step, pid = asked["step"], asked["pid"]
        if step != "state":
            self._do(_CALLS[step], pid, self._how(asked))
        return {"state": int(self._do("cuCheckpointProcessGetState", pid))}

    def _able(self, _: dict[str, Any], __: list[int]) -> dict[str, Any]:
        """What this driver can: its version, and whether it has the calls."""
        version = int(self._do("cuDriverGetVersion"))
        try:
            self._do("cuCheckpointProcessGetState", 0)
        except DriverError as error:
            return {"version": version, "able": error.code != NOT_SUPPORTED}
        return {"version": version, "able": True}

    def _how(self, asked: dict[str, Any]) -> Any:
        if asked["step"] == "lock":
            lock = self._cuda.CUcheckpointLockArgs()
            lock.timeoutMs = asked["milliseconds"]
            return lock
        if asked["step"] != "restore" or not asked["pairs"]:
            return None
        restore = self._cuda.CUcheckpointRestoreArgs()
        restore.gpuPairs = [self._pair(old, new) for old, new in asked["pairs"]]
        restore.gpuPairsCount = len(asked["pairs"])
        return restore

    def _pair(self, old: str, new: str) -> Any:
        pair = self._cuda.CUcheckpointGpuPair()
        both = bytes.fromhex(old) + bytes.fromhex(new)  # the bindings do not let a UUID be written
        ctypes.memmove(pair.getPtr(), both, len(both))
        return pair

    def _do(self, name: str, *arguments: Any) -> Any:
        try:
            error, *results = getattr(self._cuda, name)(*arguments)
        except (AttributeError, RuntimeError):  # a driver, or bindings, from before them
            raise DriverError(name, NOT_SUPPORTED) from None
        if int(error):
            raise DriverError(name, int(error))
        return results[0] if results else None
