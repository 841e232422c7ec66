"""
How the driver has a process, and what it is asked to do with one, through its card's worker.

Called by `deep` and `driver`. The driver keeps the states itself, and what it was asked for goes on
when worker and agent die, so every step looks at the state first: asked twice, it is done once.
"""

from collections.abc import Callable, Sequence

from kybernate.model.ids import GpuUuid
from nodeagent.gpuworker.checkpoints import FIRST_DRIVER, FIRST_TO_MOVE, State
from nodeagent.gpuworker.client import Worker, WorkerAway, WorkerRefused
from nodeagent.gpuworker.driver import NOT_READY, OUT_OF_MEMORY
from nodeagent.mechanisms import BodyGone, CardFull, NotPossible, NotYet
from nodeagent.mechanisms.holdings import ANSWER_S

_UNKNOWN = frozenset({1, 3})  # what the driver says of a process that never used it
Pairs = Sequence[tuple[str, str]]
"""Cards as of the checkpoint, and those that stand for them: UUIDs of 32 hexadecimal digits."""


class DriverStates:
    """Thread safe for different processes. `uuid` chooses the worker: a card of the process's."""

    def __init__(self, worker: Callable[[GpuUuid], Worker]) -> None:
        self._worker = worker
        self._versions: dict[GpuUuid, int] = {}  # of drivers that can

    def why_not(self, uuid: GpuUuid, *, to_move: bool = False) -> str:
        """Why this driver cannot; empty where it can. Raises NotYet."""
        if uuid not in self._versions:
            found = self._ask(uuid, {"op": "able"}, ANSWER_S)
            if not found["able"] or found["version"] < FIRST_DRIVER:
                return f"the driver ({_words(found['version'])}) has no checkpoints"
            self._versions[uuid] = found["version"]
        if to_move and self._versions[uuid] < FIRST_TO_MOVE:
            return f"the driver ({_words(self._versions[uuid])}) restores onto the same card only"
        return ""

    def of(self, uuid: GpuUuid, pid: int) -> State | None:
        """None where the process has no GPU state. Raises NotYet, NotPossible."""
        try:
            return self._step(uuid, pid, "state", ANSWER_S)
        except _Refused as refused:
            if refused.code in _UNKNOWN:
                return None
            raise

    def lock(self, uuid: GpuUuid, pid: int, limit: float) -> None:
        """RUNNING to LOCKED. NotYet where its work does not end: then it runs on."""
        if self._now(uuid, pid) is State.RUNNING:
            self._step(uuid, pid, "lock", limit)

    def checkpoint(self, uuid: GpuUuid, pid: int, limit: float) -> None:
        """LOCKED to CHECKPOINTED. NotPossible: it is LOCKED as before."""
        if self._now(uuid, pid) is not State.CHECKPOINTED:
            self._step(uuid, pid, "checkpoint", limit)

    def restore(self, uuid: GpuUuid, pid: int, limit: float, pairs: Pairs = ()) -> None:
        """CHECKPOINTED to LOCKED. Raises BodyGone where the driver lost it by that, CardFull."""
        if self._now(uuid, pid) is not State.CHECKPOINTED:
            return
        try:
            self._step(uuid, pid, "restore", limit, pairs)
        except (CardFull, NotPossible):
            self._now(uuid, pid)  # raises BodyGone
            raise

    def unlock(self, uuid: GpuUuid, pid: int, limit: float) -> None:
        """LOCKED to RUNNING."""
        if self._now(uuid, pid) is State.LOCKED:
            self._step(uuid, pid, "unlock", limit)

    def _now(self, uuid: GpuUuid, pid: int) -> State:
        state = self.of(uuid, pid)
        if state is None or state is State.FAILED:
            raise BodyGone(f"the driver has no whole GPU state of process {pid} any more")
        return state

    def _step(self, uuid: GpuUuid, pid: int, step: str, limit: float, pairs: Pairs = ()) -> State:
        asked = {
            "op": "process", "step": step, "pid": pid,
            "milliseconds": max(1, int(limit * 1000)), "pairs": list(pairs),
        }  # fmt: skip
        return State(self._ask(uuid, asked, limit + ANSWER_S)["state"])

    def _ask(self, uuid: GpuUuid, asked: dict[str, object], limit: float) -> dict[str, int]:
        try:
            return self._worker(uuid).ask(asked, limit)
        except WorkerAway as error:
            raise NotYet(str(error)) from error
        except WorkerRefused as error:
            if error.code == NOT_READY:
                raise NotYet(f"work of process {asked.get('pid')} does not end") from error
            if error.code == OUT_OF_MEMORY:
                raise CardFull(str(error)) from error
            raise _Refused(f"process {asked.get('pid')}: {error}", error.code) from error


class _Refused(NotPossible):
    """By the driver, with its error."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


def _words(version: int) -> str:
    return f"for CUDA {version // 1000}.{version % 1000 // 10}"
