"""
Parking with the guest library to the last byte: what the guest does not own goes by the driver.

A `Mechanism` around `guest`: the context of each process is a part of its own, the last to leave
and the first to come back. It leaves by the driver's checkpoint, which keeps it in the process's
own memory, and is 0 MiB on the card then. What must not go that way stays (shallow), is said, and
counts on the card by what the inventory shows: memory of or for other processes, since the driver
loses who imported it; NCCL's; managed memory; a container without room for it in its memory.
Rule: the guest's gate is closed from `lock` to `unlock`, so the driver may unlock a process in
between for the guest's own work, and the program does not run.
Rule: the driver's state is looked at before each step, so each step may be asked for again.
"""

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress

from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid
from kybernate.runtime.logs import get_logger
from nodeagent.disk.pool import Kept, Slot
from nodeagent.gpuworker.checkpoints import State
from nodeagent.mechanisms import Body, BodyGone, Moved, NotPossible, Part, Stands, moving
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guest
from nodeagent.mechanisms.guestwire import Calls, Verb
from nodeagent.mechanisms.holdings import ANSWER_S, cards_of, done, heard
from nodeagent.mechanisms.memoryroom import room

_CONTEXT = "/context"
_STEP_S = 30.0  # measured for an empty context: 0.4 s out, 0.26 s in
# What the guest says stays on the card (native/guest/left.c), and the driver must not take.
_NOT_BY_THE_DRIVER = (
    "memory of other processes",
    "memory shared with other processes",
    "memory of NCCL",
    "memory that NCCL has of other processes",
    "communicators of NCCL",
    "managed memory",
)


class Deep:
    """A `Mechanism`."""

    name = "guest"

    def __init__(
        self, guest: GuestMechanism, states: DriverStates, residue: Callable[[Body], int],
        notes: moving.Notes,
    ) -> None:  # fmt: skip
        """`residue` tells the bytes its processes hold on cards; it may raise a Retry."""
        self._guest, self._states = guest, states
        self._residue, self._notes = residue, notes
        self._surfacing = threading.Lock()  # its cards are filled side by side

    def here(self, body: Body) -> bool:
        """As the guest mechanism says."""
        return self._guest.here(body)

    def calls(self, body: Body) -> tuple[Calls, ...] | None:
        """As the guest mechanism says."""
        return self._guest.calls(body)

    def stands(self, body: Body) -> Stands:
        """As the guest's, once it has run here: until then a note beside its slot says which cards
        stand for those it was sealed on."""
        return Stands.PROCESS if self._notes.of(body) else self._guest.stands(body)

    def lock(self, body: Body, limit: float) -> None:
        """As the port says."""
        self._guest.lock(body, limit)

    def unlock(self, body: Body, limit: float) -> None:
        """As the port says."""
        self._surface(body)
        self._guest.unlock(body, limit)
        self._notes.drop(body)

    def parts(self, body: Body) -> tuple[Part, ...]:
        """As the port says; contexts that may leave come last."""
        contexts = [self._context(body, guest) for guest in self._guest.guests(body)]
        return (*self._guest.parts(body), *(one for one in contexts if one is not None))

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        """As the port says. Of a context there is only a note: it stays in its process."""
        if not part.name.endswith(_CONTEXT):
            return self._guest.copy_out(body, part, slot, moved)
        content, digest = slot.write(part.name, iter([part.name.encode()]))
        return Kept(name=part.name, uuid=part.uuid, size=0, content=content, digest=digest)

    def release(self, body: Body, part: Part, limit: float) -> None:
        """As the port says. A context that cannot leave stays, and that is no failure."""
        if not part.name.endswith(_CONTEXT):
            self._surface(body)
            self._guest.release(body, part, limit)
        elif not body.returns_soon and (guest := self._named(body, part.name)) is not None:
            try:
                self._empty(body, guest, limit)
            except BodyGone:
                raise
            except (Refused, Retry) as why:  # contents are out; `_surface` knows every state
                _say(body, guest, str(why))

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """As the port says."""
        self._surface(body)
        if not kept.name.endswith(_CONTEXT):
            return self._guest.copy_in(body, kept, slot, moved)
        slot.check(kept)
        return kept.digest

    def let_go(self, body: Body, limit: float) -> str:
        """As the port says: the contexts leave for good, until somebody unlocks."""
        names = {}
        for guest in self._guest.guests(body):
            if why := self._why_shallow(body, guest):
                raise NotPossible(f"process {guest.pid} cannot leave its card: {why}")
            cards = cards_of(guest)
            places = {name.hex(): _place(body, card) for name, card in cards.items()}
            names[guest.nonce.hex()] = {n: p for n, p in places.items() if p is not None}
            self._empty(body, guest, limit)
        return moving.describe(self.name, body.gpus, names)

    def adopt(self, body: Body, known: str) -> None:
        """As the port says."""
        moved = moving.read(known, self.name, body.gpus)
        if moved and (why := self._states.why_not(body.gpus[0], to_move=True)):
            raise NotPossible(why)
        self._notes.keep(body, moved)

    def forget(self, body: Body) -> None:
        """As the port says."""
        self._guest.forget(body)

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        """As the port says."""
        return self._guest.probe(uuid)

    def left(self, body: Body) -> tuple[str, ...]:
        """What stays on the card while it is parked."""
        return self._guest.left(body)

    def close(self) -> None:
        """As the guest's mechanism."""
        self._guest.close()

    def _context(self, body: Body, guest: Guest) -> Part | None:
        """None where it has to stay."""
        if self._why_shallow(body, guest):
            return None
        uuid = self._card(body, guest)
        state = self._states.of(uuid, guest.pid)
        if state is None:
            return None
        if state is State.FAILED:
            raise BodyGone(f"the driver lost the GPU state of process {guest.pid}")
        name, backed = guest.nonce.hex() + _CONTEXT, state is not State.CHECKPOINTED
        digest = hashlib.blake2b(name.encode(), digest_size=32).hexdigest() if backed else ""
        return Part(name=name, uuid=uuid, size=0, content=len(name), backed=backed, digest=digest)

    def _why_shallow(self, body: Body, guest: Guest) -> str:
        """Why a context has to stay on its card; empty where it may leave."""
        text = heard(guest, Verb.LEFT, ANSWER_S)[0].text
        kinds = {line.split(" ", 2)[-1] for line in text.splitlines()}
        for kind in _NOT_BY_THE_DRIVER:
            if kind in kinds:
                return f"the driver does not bring back {kind}"
        return self._states.why_not(self._card(body, guest))

    def _empty(self, body: Body, guest: Guest, limit: float) -> None:
        """The context into the process's own memory. NotPossible: it is on the card as before."""
        uuid = self._card(body, guest)
        if self._states.of(uuid, guest.pid) is State.CHECKPOINTED:
            return
        need, left = self._residue(body), room(guest.pid)
        if left is not None and left < need:
            raise NotPossible(f"{need / 2**20:.0f} MiB do not fit the container's memory limit")
        try:
            self._states.lock(uuid, guest.pid, limit)
            self._states.checkpoint(uuid, guest.pid, max(limit, _STEP_S))
        except NotPossible:
            with suppress(Retry):
                self._states.unlock(uuid, guest.pid, limit)
            raise

    def _surface(self, body: Body) -> None:
        """Contexts back on their cards and the driver's lock open, so that guests can work."""
        with self._surfacing:
            self._surface_all(body)

    def _surface_all(self, body: Body) -> None:
        moved = self._notes.of(body)
        for guest in self._guest.guests(body):
            uuid = self._card(body, guest)
            if not moved and self._states.why_not(uuid):
                continue
            if self._states.of(uuid, guest.pid) is None:
                continue
            self._states.restore(uuid, guest.pid, _STEP_S, moved.pairs if moved else ())
            self._states.unlock(uuid, guest.pid, _STEP_S)
            for name, now in moved.guests.get(guest.nonce.hex(), {}).items():
                card, to = bytes.fromhex(name), bytes.fromhex(now)
                done(heard(guest, Verb.MOVED, ANSWER_S, card=card, to=to)[0], guest)

    def _named(self, body: Body, part: str) -> Guest | None:
        nonce = part.removesuffix(_CONTEXT)
        found = (guest for guest in self._guest.guests(body) if guest.nonce.hex() == nonce)
        return next(found, None)

    def _card(self, body: Body, guest: Guest) -> GpuUuid:
        """One of its workload's cards, whose worker is asked."""
        return body.gpus[0] if body.gpus else next(iter(cards_of(guest).values()))


def _place(body: Body, card: GpuUuid) -> int | None:
    """None: a card it can see and was not given."""
    return body.gpus.index(card) if card in body.gpus else None


def _say(body: Body, guest: Guest, why: str) -> None:
    get_logger(workload=str(body.key), process=guest.pid, why=why).warning("parked shallow")
