"""
Parking by the driver alone (cuCheckpointProcess*): for processes without the guest library.

The driver copies VRAM into the process's own memory, slower than the guest's way by far, and
verifies nothing that we could see. A part is all that one process has on its cards; the slot holds
a note, since the contents stay in the process. What is checkpointed cannot run: a dead agent
leaves it so.
Rule: that memory is charged to the container, so its limit has to cover its VRAM before we begin.
Rule: a process that maps memory of another one is lost by this, and late: the checkpoint succeeds,
the restore does not. From outside that cannot be seen, so a workload of several processes on GPUs,
or one that has NCCL's shared memory, is refused.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid
from nodeagent.disk.pool import Kept, Pool, Slot
from nodeagent.gpuworker.checkpoints import State
from nodeagent.linux import processes
from nodeagent.linux.freezer import Freezing
from nodeagent.mechanisms import Body, BodyGone, Moved, NotPossible, Part, Stands, moving
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.memoryroom import room

_DRIVER, _LIBRARY = "libcuda.so", "libkybguest"
_SHARED = "/dev/shm/nccl-"  # noqa: S108 - a mapping's name
_SLOWEST = 2**29  # bytes a second; measured were 1.6 GB/s and more
_AT_LEAST_S = 60.0

Held = Callable[[Body], Mapping[int, int]]
"""Bytes of the cards by process, of a workload's. Raises a Retry when it cannot tell."""


class DriverMechanism:
    """A `Mechanism`."""

    name = "driver"

    def __init__(
        self, states: DriverStates, held: Held, freezer: Freezing, pool: Pool | None = None
    ) -> None:
        """`pool` keeps, beside a slot, which cards a woken workload is on now."""
        self._states, self._held, self._freezer = states, held, freezer
        self._notes = moving.Notes(pool)

    def stands(self, body: Body) -> Stands:  # noqa: ARG002 - the port's
        """The driver keeps it with the process."""
        return Stands.PROCESS

    def lock(self, body: Body, limit: float) -> None:
        """As the port says. NotPossible, in words, where it would be lost by it. A workload that
        has not touched a card yet is frozen instead."""
        found = self._found(body)
        if not found:
            self._freezer.freeze(body.pid, body.container_id)
            found = self._found(body)
            if not found:
                return
            self._freezer.thaw(body.pid, body.container_id)
        self._check(body, found)
        until = time.monotonic() + limit
        try:
            for pid in found:
                self._states.lock(_card(body), pid, max(0.1, until - time.monotonic()))
        except BaseException:
            self._unlock(body, limit)
            raise

    def _check(self, body: Body, found: Mapping[int, State]) -> None:
        if why := self._states.why_not(_card(body)):
            raise NotPossible(why)
        if len(found) > 1:
            raise NotPossible(f"processes {sorted(found)} use GPUs, and may share memory there")
        for pid in found:
            if _SHARED in _maps(pid):
                raise NotPossible(f"process {pid} shares memory with others through NCCL")
        need, left = sum(self._held(body).values()), room(body.pid)
        if left is not None and left < need:
            raise NotPossible(
                f"the driver would put {need / 2**20:.0f} MiB of VRAM into the container's memory,"
                f" whose limit leaves {left / 2**20:.0f} MiB"
            )

    def _unlock(self, body: Body, limit: float) -> None:
        with suppress(Refused, Retry):
            self.unlock(body, limit)

    def unlock(self, body: Body, limit: float) -> None:
        """As the port says."""
        for pid, state in self._found(body).items():
            if state is State.CHECKPOINTED:
                raise NotPossible(f"process {pid} is not whole: the driver has its memory")
            self._states.unlock(_card(body), pid, limit)
        self._notes.drop(body)
        self._freezer.thaw(body.pid, body.container_id)

    def parts(self, body: Body) -> tuple[Part, ...]:
        """As the port says."""
        found = self._found(body)
        sizes = self._held(body) if found else {}
        return tuple(_part(body, pid, state, sizes.get(pid, 0)) for pid, state in found.items())

    def copy_out(
        self,
        body: Body,  # noqa: ARG002 - the port's
        part: Part,
        slot: Slot,
        moved: Moved,
    ) -> Kept:
        """Nothing yet: the driver copies when it releases, and keeps what it copied."""
        content, digest = slot.write(part.name, iter([part.name.encode()]))
        moved(part.size)
        return Kept(name=part.name, uuid=part.uuid, size=part.size, content=content, digest=digest)

    def release(self, body: Body, part: Part, limit: float) -> None:
        """As the port says; it takes as long as the driver copies."""
        pid, uuid = _pid(body, part.name), _card(body)
        self._states.lock(uuid, pid, limit)
        self._states.checkpoint(uuid, pid, _seconds(part.size, limit))

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """As the port says. The slot's note is compared, the contents are the driver's."""
        pid, uuid = _pid(body, kept.name), _card(body)
        slot.check(kept)
        pairs = self._notes.of(body).pairs
        self._states.restore(uuid, pid, _seconds(kept.size, 0.0), pairs)
        moved(kept.size)
        return kept.digest

    def let_go(self, body: Body, limit: float) -> str:
        """As the port says: what is parked has nothing of the driver's left already."""
        for pid, state in self._found(body).items():
            if state is not State.CHECKPOINTED:
                self._states.lock(_card(body), pid, limit)
                self._states.checkpoint(_card(body), pid, limit)
        return moving.describe(self.name, body.gpus, {})

    def adopt(self, body: Body, known: str) -> None:
        """As the port says."""
        moved = moving.read(known, self.name, body.gpus)
        if moved and (why := self._states.why_not(_card(body), to_move=True)):
            raise NotPossible(why)
        self._notes.keep(body, moved)

    def forget(self, body: Body) -> None:
        """As the port says; of its memory the driver takes care."""

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:  # noqa: ARG002 - the port's
        """Unknown: the driver has no small copy."""
        return None

    def _found(self, body: Body) -> dict[int, State]:
        """Its processes that the driver knows, by their number."""
        found: dict[int, State] = {}
        for pid in processes.tree(body.pid):
            if _DRIVER in _maps(pid):
                state = self._states.of(_card(body), pid)
                if state is State.FAILED:
                    raise BodyGone(f"the driver lost the GPU state of process {pid}")
                if state is not None:
                    found[pid] = state
        return found


def uses_the_driver(pid: int) -> bool:
    """Whether the driver's library is in a process."""
    return _DRIVER in _maps(pid)


def has_the_library(pid: int) -> bool:
    """Whether the guest library is in a process."""
    return _LIBRARY in _maps(pid)


def _maps(pid: int) -> str:
    try:
        return (processes.PROC / str(pid) / "maps").read_text()
    except OSError:
        return ""


def _card(body: Body) -> GpuUuid:
    if not body.gpus:
        raise NotPossible("the workload has no cards")
    return body.gpus[0]


def _part(body: Body, pid: int, state: State, size: int) -> Part:
    """Its name is the process's number inside its container, which an image keeps."""
    name, backed = f"driver/{processes.inner(pid)}", state is not State.CHECKPOINTED
    digest = hashlib.blake2b(name.encode(), digest_size=32).hexdigest() if backed else ""
    return Part(
        name=name, uuid=_card(body), size=size, content=len(name), backed=backed, digest=digest
    )


def _pid(body: Body, name: str) -> int:
    for pid in processes.tree(body.pid):
        if name == f"driver/{processes.inner(pid)}":
            return pid
    raise BodyGone(f"the process of part {name} is gone")


def _seconds(size: int, limit: float) -> float:
    return max(limit, _AT_LEAST_S, size / _SLOWEST)
