"""
Who is attached to the cards, and whose gate is open: the part of a `Device` that knows contexts.

Called by: `device`, `service`, `inventory`, from as many threads as there are calls.
Rule: one condition guards all state and every wait is on it, so nothing that changes is missed.
Rule: a context that was disconnected lives on without its process; nobody's memory stays for long:
once its gate is open, its process has `REJOIN_S` to come back.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.gpu.card import Card
from testbed.gpu.context import Activity, Context, Segment
from testbed.gpu.errors import Absent, Disconnected, GaveUp, Unfit
from testbed.gpu.gates import Gates
from testbed.gpu.moving import Caller

# A thawed process looks at its gate 20 times a second; this is for one that died meanwhile.
REJOIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process as it sees itself. Namespace 0: not told."""

    pid: int
    namespace: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A segment without its contents, as a workload from elsewhere knows it. Bytes."""

    name: str
    card: str  # the uuid the workload knows
    size: int
    length: int


class Contexts:
    """Thread safe. Errors are those of `testbed.gpu.errors`."""

    def __init__(
        self,
        cards: Iterable[Card],
        gates: Gates | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cards: dict[str, Card] = {card.gpu.uuid: card for card in cards}
        self._contexts: dict[str, Context] = {}
        self._gates = gates or Gates()
        self._attached = 0
        self._changed = threading.Condition()  # its lock may be taken again by who has it
        self._monotonic = monotonic
        self._namespace = Path("/proc/self/ns/pid").stat().st_ino

    @contextmanager
    def reading(self) -> Iterator[tuple[tuple[Context, ...], float]]:
        """All contexts and the moment, while nothing can change."""
        with self._changed:
            yield tuple(self._contexts.values()), self._monotonic()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """For changes to the cards themselves."""
        with self._changed:
            yield
            self._changed.notify_all()

    def nudge(self) -> None:
        """Have everybody who waits look again."""
        with self._changed:
            self._changed.notify_all()

    # coming and going

    def attach(self, owner: Owner, uuids: Iterable[str]) -> Context:
        """A new context on these cards; locked, where another one of its container is.

        Raises Absent for an unknown card.
        """
        with self._changed:
            cards = {uuid: self._card(uuid) for uuid in uuids}
            if owner.pid <= 0 or not cards:
                raise Unfit("a context needs a process and at least one card")
            parked = any(c.locked for c in self._contexts.values() if self._together(c, owner))
            context = self._new(owner, cards, uuid.uuid4().hex)
            context.locked = parked
            return context

    def rejoin(self, owner: Owner, identity: str) -> Context:
        """The context that its process was disconnected from. Raises Absent."""
        with self._changed:
            context = self._of(owner.namespace, identity)
            if context is None or context.pid != owner.pid or not context.disconnected:
                raise Absent(f"no context {identity!r} waits for process {owner.pid}")
            context.disconnected = False
            context.joined += 1
            return context

    def adopt(
        self, owner: Owner, identity: str, cards: Mapping[str, str], shapes: Iterable[Shape]
    ) -> Context:
        """A context that came from elsewhere: locked, disconnected, no VRAM. Idempotent."""
        with self._changed:
            there = self._of(owner.namespace, identity)
            if there is not None:
                return there
            known = {was: self._card(now) for was, now in cards.items()}
            if owner.pid <= 0 or not known:
                raise Unfit("a context needs a process and at least one card")
            for shape in shapes:
                if shape.card not in known:
                    raise Unfit(f"segment {shape.name} is on {shape.card!r}, which is not mapped")
            context = self._new(owner, known, identity)
            context.locked = context.disconnected = True
            for one in shapes:
                made = Segment(one.name, known[one.card], one.size, one.length, None)
                context.segments[one.name] = made
            self._gates.close(identity, owner.namespace)
            return context

    def disconnect(self, name: str) -> None:
        """End its process's calls; the context stays. Only while locked. Idempotent."""
        with self._changed:
            context = self._context(name)
            context.must_be_locked()
            self._gates.close(context.identity, context.namespace)
            context.disconnected = True
            self._changed.notify_all()

    def stay(self, context: Context, joined: int, caller: Caller) -> None:
        """While the caller is attached. Raises Disconnected when it was told to go."""
        with self._changed:
            while caller.alive() and not context.gone:
                if context.disconnected or context.joined != joined:
                    raise Disconnected(context.name)
                self._changed.wait()

    def left(self, context: Context, joined: int) -> None:
        """Its process is not attached any more: the context ends, unless it was disconnected."""
        with self._changed:
            if context.joined == joined and not context.disconnected:
                self.detach(context.name)

    def detach(self, name: str) -> None:
        """The context ends; all its memory is free. Idempotent."""
        with self._changed:
            context = self._contexts.pop(name, None)
            if context is None:
                return
            context.gone = True
            self._gates.open(context.identity, context.namespace)
            for segment in list(context.segments.values()):
                context.drop(segment)
            self._changed.notify_all()

    # the gate

    def lock(self, name: str, caller: Caller) -> None:
        """Close the gate and wait until running work has ended. Given up, the gate is as before."""
        with self._changed:
            context = self._context(name)
            context.closing += 1
            try:
                self._wait(context, caller, lambda: context.running == 0)
                context.locked = True
            finally:
                context.closing -= 1
                self._changed.notify_all()

    def unlock(self, name: str, caller: Caller) -> None:
        """Open the gate, after copies have ended. Raises WrongState when contents are away."""
        with self._changed:
            context = self._context(name)
            self._wait(context, caller, lambda: not context.copying)
            context.must_be_whole()
            context.locked = False
            self._gates.open(context.identity, context.namespace)
            if context.disconnected:
                self._expect(name)
            self._changed.notify_all()

    def segments(self, name: str) -> tuple[Segment, ...]:
        """The context's segments, oldest first."""
        with self._changed:
            return tuple(self._context(name).segments.values())

    def _new(self, owner: Owner, cards: dict[str, Card], identity: str) -> Context:
        self._attached += 1
        name = f"ctx-{self._attached}"
        activity: dict[str, Activity] = {
            c.gpu.uuid: Activity(ended=self._monotonic()) for c in cards.values()
        }
        context = Context(name, owner.pid, cards, activity, owner.namespace, identity)
        self._contexts[name] = context
        return context

    def _together(self, context: Context, owner: Owner) -> bool:
        """Whether both are of one container, by its own namespace, or of one process."""
        if context.namespace != owner.namespace:
            return False
        return context.pid == owner.pid or owner.namespace not in (0, self._namespace)

    def _expect(self, name: str) -> None:
        """A process that does not come back is gone, and so is its memory."""

        def look() -> None:
            with self._changed:
                context = self._contexts.get(name)
                if context is not None and context.disconnected and not context.locked:
                    self.detach(name)

        timer = threading.Timer(REJOIN_S, look)
        timer.daemon = True
        timer.start()

    def _of(self, namespace: int, identity: str) -> Context | None:
        of = (c for c in self._contexts.values() if c.identity == identity)
        return next((c for c in of if c.namespace == namespace), None)

    def _pass_gate(self, name: str, caller: Caller) -> Context:
        context = self._context(name)
        context.waiting += 1
        try:
            self._wait(context, caller, lambda: context.gate_open or context.disconnected)
            if context.disconnected:
                raise Disconnected(name)
        finally:
            context.waiting -= 1
        return context

    def _wait(self, context: Context, caller: Caller, until: Callable[[], bool]) -> None:
        while not until():
            if not caller.alive():
                raise GaveUp("the caller went away")
            self._changed.wait()
            self._must_live(context)

    def _must_live(self, context: Context) -> None:
        if context.gone:
            raise Absent(f"context {context.name} ended")

    def _context(self, name: str) -> Context:
        try:
            return self._contexts[name]
        except KeyError:
            raise Absent(f"no context {name!r}") from None

    def _card(self, uuid: str) -> Card:
        try:
            return self.cards[uuid]
        except KeyError:
            raise Absent(f"no card {uuid!r}") from None
