"""
All cards and contexts of a service, and everything that can be done with them.

Called by: `service`, from as many threads as there are calls.
Who is attached and whose gate is open is known to `contexts`; here is what is done with segments.
Rule: long things (filling, hashing, the bus) happen outside its lock, on what a context's counters
protect.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from testbed.gpu import content
from testbed.gpu.card import Card
from testbed.gpu.context import Context, Segment
from testbed.gpu.contexts import Contexts
from testbed.gpu.errors import Unfit, WrongState
from testbed.gpu.gates import Gates
from testbed.gpu.moving import Caller, Moving

# A copy can be left after each chunk: 512 MiB pretended are 20 ms of the bus. No chunk is so small
# that gRPC would set the pace, none near gRPC's limit of 4 MiB.
_CHUNK_PRETENDED = 512 * 2**20
_CHUNK_LIMITS = 4 * 2**10, 512 * 2**10


class Device(Contexts):
    """Thread safe. Errors are those of `testbed.gpu.errors`."""

    def __init__(
        self,
        cards: Iterable[Card],
        *,
        scale: int = 1024,
        gates: Gates | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(cards, gates, monotonic)
        self.scale = scale
        self._chunk = max(_CHUNK_LIMITS[0], min(_CHUNK_LIMITS[1], _CHUNK_PRETENDED // scale))

    def allocate(self, name: str, uuid: str, size: int, caller: Caller) -> Segment:
        """Waits while the gate is closed. Raises NoRoom as a card does."""
        with self._changed:
            context = self._pass_gate(name, caller)
            return context.add(uuid, size, self.scale)

    def free(self, name: str, segment: str, caller: Caller) -> None:
        """Waits while the gate is closed."""
        with self._changed:
            context = self._pass_gate(name, caller)
            context.drop(context.segment(segment))
            self._changed.notify_all()

    @contextmanager
    def working(self, name: str, segment_name: str, caller: Caller) -> Iterator[Segment]:
        """A piece of work on a segment: waits for the gate, then keeps it from being locked."""
        with self._changed:
            context = self._pass_gate(name, caller)
            segment = context.segment(segment_name)
            segment.card.must_be_well()
            activity = context.activity[segment.card.gpu.uuid]
            activity.submitted += 1
            activity.running += 1
            context.running += 1
        try:
            yield segment
        finally:
            with self._changed:
                context.running -= 1
                activity.running -= 1
                activity.ended = self._monotonic()
                self._changed.notify_all()

    def release(self, name: str, segment_name: str, caller: Caller) -> None:
        """The segment's contents go and its VRAM is free. Only while locked. Idempotent."""
        with self._changed:
            context = self._context(name)
            context.must_be_locked()
            segment = context.segment(segment_name)
            self._wait(context, caller, lambda: not segment.copies)
            context.must_be_locked()
            context.unback(segment)
            self._changed.notify_all()

    def copy_out(
        self, name: str, segment_name: str, caller: Caller, fail_after: int | None
    ) -> Iterator[bytes]:
        """The segment's contents at the bus's rate. Only while locked."""
        with self._copying(name, segment_name) as (context, segment):
            held = segment.content
            if held is None:
                raise WrongState(f"{segment_name} is not in VRAM")
            moving = Moving(context, segment, segment.card.out, caller, fail_after)
            for start in range(0, segment.length, self._chunk):
                chunk = bytes(memoryview(held)[start : start + self._chunk])
                moving.moved(len(chunk))
                yield chunk

    def copy_in(
        self,
        name: str,
        segment_name: str,
        chunks: Iterator[bytes],
        caller: Caller,
        fail_after: int | None,
    ) -> str:
        """Put contents in place, whole or not at all; their digest. Only while locked.

        Raises NoRoom before the first of `chunks` is read.
        """
        with self._copying(name, segment_name) as (context, segment), self._room(context, segment):
            arrived = bytearray()
            moving = Moving(context, segment, segment.card.into, caller, fail_after)
            for chunk in chunks:
                arrived += chunk
                if len(arrived) > segment.length:
                    raise Unfit(f"more than the {segment.length} bytes of {segment_name}")
                moving.moved(len(chunk))
            if len(arrived) != segment.length:
                raise Unfit(f"{len(arrived)} of the {segment.length} bytes of {segment_name}")
            digest = content.digest(arrived)
            with self._changed:
                self._must_live(context)
                segment.content = arrived
            return digest

    @contextmanager
    def _copying(self, name: str, segment_name: str) -> Iterator[tuple[Context, Segment]]:
        with self._changed:
            context = self._context(name)
            context.must_be_locked()
            segment = context.segment(segment_name)
            segment.card.must_be_well()
            segment.copies += 1
        try:
            yield context, segment
        finally:
            with self._changed:
                segment.copies -= 1
                self._changed.notify_all()

    @contextmanager
    def _room(self, context: Context, segment: Segment) -> Iterator[None]:
        """Keep the segment's VRAM for what is to arrive; given back when it does not."""
        with self._changed:
            if segment.arriving:
                raise WrongState(f"{segment.name} is being copied in already")
            if not segment.holds:
                segment.card.take(segment.size)
            segment.arriving = True
        try:
            yield
        finally:
            with self._changed:
                segment.arriving = False
                if segment.content is None and not context.gone:
                    segment.card.give(segment.size)
                self._changed.notify_all()
