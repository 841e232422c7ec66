"""
Parking on the simulated GPU (testbed/gpu): the driver's calls over a socket.

A workload's parts are the segments of all contexts its container's processes have. One that has no
context yet is frozen instead, so that it cannot take VRAM while it is parked.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kybernate.artifacts.chunks import Bytes
from kybernate.clients import simgpu
from kybernate.clients.errors import Retry
from kybernate.model.ids import GpuUuid
from nodeagent.disk.pool import Kept, Slot
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezing
from nodeagent.mechanisms import (
    Body,
    BodyGone,
    CardFull,
    Moved,
    NotPossible,
    NotYet,
    Part,
    Stands,
    hangup,
    simulated_moving,
)

# Long enough for a rate (20 ms of a 50 GB/s bus), small enough to fit beside a tenant.
_PROBE_BYTES = 2**30


class Simulated:
    """A `Mechanism`."""

    name = "simulated"

    def __init__(self, address: str | Path, freezer: Freezing, cgroups: Cgroups) -> None:
        """`address` is the device's unix socket. Nothing is asked yet."""
        self._address = address
        self._freezer, self._cgroups = freezer, cgroups
        self._driver = simgpu.Driver(address)

    def stands(self, body: Body) -> Stands:  # noqa: ARG002
        """In the slots' files."""
        return Stands.SLOT

    def lock(self, body: Body, limit: float) -> None:
        """As the port says."""
        contexts = self._handles(body)
        if not contexts:
            self._freezer.freeze(body.pid, body.container_id)
            contexts = self._handles(body)
            if not contexts:
                return
        try:
            self._each(contexts, lambda context: self._driver.lock(context, limit))
        except BaseException:
            self._unlock(contexts, limit)
            raise
        finally:
            self._freezer.thaw(body.pid, body.container_id)

    def unlock(self, body: Body, limit: float) -> None:
        """As the port says."""
        self._each(self._handles(body), lambda context: self._driver.unlock(context, limit))
        self._freezer.thaw(body.pid, body.container_id)

    def _unlock(self, contexts: tuple[str, ...], limit: float) -> None:
        with suppress(simgpu.NotNow, simgpu.ContextGone, simgpu.DeviceAway):
            self._each(contexts, lambda context: self._driver.unlock(context, limit))

    def _each(self, contexts: tuple[str, ...], call: Callable[[str], None]) -> None:
        with _translated():
            for context in contexts:
                call(context)

    def parts(self, body: Body) -> tuple[Part, ...]:
        """As the port says."""
        with _translated():
            return tuple(
                Part(
                    name=f"{context.identity}/{segment.name}",
                    uuid=segment.uuid,
                    size=segment.size,
                    content=segment.content,
                    backed=segment.backed,
                    digest=segment.digest,
                )
                for context in self._contexts(body)
                for segment in self._driver.segments(context.context)
            )

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        """As the port says."""
        context, segment = self._named(body, part.name)
        with _translated():
            chunks = _counted(
                self._driver.copy_out(context, segment), part.size, part.content, moved
            )
            content, digest = slot.write(part.name, chunks)
        return Kept(name=part.name, uuid=part.uuid, size=part.size, content=content, digest=digest)

    def release(self, body: Body, part: Part, limit: float) -> None:
        """As the port says."""
        context, segment = self._named(body, part.name)
        with _translated():
            self._driver.release(context, segment, limit)

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """As the port says. Raises Damaged where the slot is."""
        context, segment = self._named(body, kept.name)
        chunks = _counted(slot.read(kept.name), kept.size, kept.content, moved)
        with _translated():
            return self._driver.copy_in(context, segment, chunks)

    def let_go(self, body: Body, limit: float) -> str:
        """As the port says."""
        with _translated():
            processes = self._processes(body)
            handles = sorted({one.context for one in processes})
            segments = {handle: self._driver.segments(handle) for handle in handles}
            for handle in handles:
                self._driver.disconnect(handle, limit)
        hangup.await_closed(body.pid, self._address, limit)
        return simulated_moving.describe(processes, segments, body.gpus)

    def adopt(self, body: Body, known: str) -> None:
        """As the port says."""
        for context in simulated_moving.read(known, body.gpus):
            with _translated():
                self._driver.adopt(body.pid, context)

    def forget(self, body: Body) -> None:  # noqa: ARG002
        """As the port says: contexts whose processes are nowhere on this node are nobody's. Most
        end with their process; those it was disconnected from do not."""
        with suppress(simgpu.NotNow, simgpu.ContextGone, Retry):
            shown = self._driver.showing().processes
            for context in {one.context for one in shown if one.context and not one.pid}:
                self._driver.forget(context)

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        """As the port says: out of a context of our own; by the device's word where it is full."""
        try:
            with simgpu.Attachment(self._address, os.getpid(), [uuid]) as own:
                segment = own.allocate(uuid, _PROBE_BYTES, timeout=5.0)
                self._driver.lock(own.context, 5.0)
                began = time.monotonic()
                for _ in self._driver.copy_out(own.context, segment):
                    pass
                return _PROBE_BYTES, time.monotonic() - began
        except (simgpu.OutOfMemory, simgpu.ContextGone, simgpu.NotNow, Retry):
            return self._announced(uuid)

    def _announced(self, uuid: GpuUuid) -> tuple[int, float] | None:
        try:
            rate = self._driver.showing().bus_bytes_per_second.get(uuid, 0.0)
        except (simgpu.NotNow, Retry):
            return None
        return (_PROBE_BYTES, _PROBE_BYTES / rate) if rate else None

    def _handles(self, body: Body) -> tuple[str, ...]:
        return tuple(one.context for one in self._contexts(body))

    def _contexts(self, body: Body) -> tuple[simgpu.Process, ...]:
        """Each of its contexts, once however many cards it is on."""
        found = {one.context: one for one in self._processes(body)}
        return tuple(one for _, one in sorted(found.items()))

    def _processes(self, body: Body) -> tuple[simgpu.Process, ...]:
        """Its contexts, each once for every card it is on."""
        with _translated():
            shown = [one for one in self._driver.showing().processes if one.context]
        return processes.of_container(shown, body.pid, body.container_id, self._cgroups)

    def _named(self, body: Body, part: str) -> tuple[str, str]:
        """The context and the segment that a part's name means. Raises BodyGone."""
        identity, _, segment = part.partition("/")
        for one in self._contexts(body):
            if one.identity == identity:
                return one.context, segment
        raise BodyGone(f"the workload has no context {identity!r}")


def _counted(chunks: Iterator[Bytes], size: int, content: int, moved: Moved) -> Iterator[Bytes]:
    """Tell the card's bytes of every chunk on its way."""
    for chunk in chunks:
        yield chunk
        moved(len(chunk) * size // max(1, content))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except simgpu.OutOfMemory as error:
        raise CardFull(str(error)) from error
    except simgpu.ContextGone as error:
        raise BodyGone(str(error)) from error
    except simgpu.NotNow as error:
        raise NotPossible(str(error)) from error
    except Retry as error:
        raise NotYet(str(error)) from error
