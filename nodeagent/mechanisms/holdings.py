"""
What a guest holds on a card, and how it is asked: answers and errors in the port's words.

Called by `guest` and `guestcopy`. Rule: while the gate is closed the list of segments stands still,
so the index of a part is the same however often it is made.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from kybernate.model.ids import GpuUuid
from nodeagent.gpuworker.driver import OUT_OF_MEMORY
from nodeagent.linux import processes
from nodeagent.mechanisms import BodyGone, CardFull, NotPossible, NotYet, Part
from nodeagent.mechanisms.copies import Place
from nodeagent.mechanisms.guests import Guest, GuestAway
from nodeagent.mechanisms.guestwire import BATCH, Answer, Segment, State, Status, Verb

_VERSION = 1
ANSWER_S = 10.0  # for anything that does not wait for the program


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one guest holds on one card."""

    guest: Guest
    uuid: GpuUuid
    epoch: int
    closed: bool
    segments: tuple[Segment, ...]

    @property
    def name(self) -> str:
        """The part's."""
        return f"{self.guest.nonce.hex()}/{uuid_of(self.card)}"

    @property
    def size(self) -> int:
        """Bytes of the card, when all is backed."""
        return sum(segment.size for segment in self.segments)

    @property
    def card(self) -> bytes:
        """The card as the guest names it: the one it began on."""
        return self.segments[0].card

    def index(self) -> bytes:
        """The part's, as it stands in a slot."""
        return orjson.dumps({"version": _VERSION, "epoch": self.epoch, "segments": self.listed()})

    def digest(self) -> str:
        """Empty where the contents are not for sure what they were when the gate was closed."""
        whole = all(one.state is State.BACKED and not one.touched for one in self.segments)
        if not (whole and self.closed):
            return ""
        return hashlib.blake2b(self.index(), digest_size=32).hexdigest()

    def part(self) -> Part:
        """As the port has it."""
        return Part(
            name=self.name,
            uuid=self.uuid,
            size=self.size,
            content=len(self.index()),
            backed=any(one.state is not State.RELEASED for one in self.segments),
            digest=self.digest(),
        )

    def every(self, verb: Verb, limit: float) -> None:
        """Ask something of all segments; `limit` in seconds for each batch of them."""
        for first in range(0, len(self.segments), BATCH):
            done(heard(self.guest, verb, limit, card=self.card, first=first)[0], self.guest)

    def listed(self) -> tuple[Place, ...]:
        """Its segments, as a copy has them."""
        return tuple((one.id, one.address, one.size) for one in self.segments)


def heard(guest: Guest, verb: Verb, limit: float, **which: Any) -> tuple[Answer, list[int]]:
    """What a guest answers, with descriptors. Raises BodyGone, NotYet."""
    try:
        return guest.ask(verb, limit, **which)
    except GuestAway as error:
        if processes.started(guest.pid) is None:
            raise BodyGone(f"process {guest.pid} is gone") from error
        raise NotYet(str(error)) from error


def done(answer: Answer, guest: Guest) -> None:
    """Raises CardFull or NotPossible where it was not."""
    kinds: dict[int, Callable[[str], Exception]] = {OUT_OF_MEMORY: CardFull}
    if answer.status != Status.DONE:
        kind = kinds.get(answer.status, NotPossible)
        raise kind(f"process {guest.pid}: {answer.verb.name} failed with {answer.status}")


def holdings(guest: Guest) -> tuple[Holding, ...]:
    """One for each card the guest has memory on, in the order the guest will hand it over."""
    pages, where = _pages(guest), cards_of(guest)
    by_card: dict[bytes, list[Segment]] = {}
    for page in pages:
        for segment in page.segments:
            by_card.setdefault(segment.card, []).append(segment)
    return tuple(
        Holding(
            guest=guest,
            uuid=where.get(card, uuid_of(card)),
            epoch=pages[0].epoch,
            closed=pages[0].closed,
            segments=tuple(segments),
        )
        for card, segments in by_card.items()
    )


def uuid_of(card: bytes) -> GpuUuid:
    """A card as everybody but guests names it."""
    return GpuUuid(f"GPU-{UUID(bytes=card)}")


def cards_of(guest: Guest) -> Mapping[bytes, GpuUuid]:
    """The cards a guest sees, by the names it has for them; empty for a guest from before it could
    move. Raises BodyGone, NotYet, NotPossible."""
    answer = heard(guest, Verb.WHERE, ANSWER_S)[0]
    pairs = (line.split() for line in answer.text.splitlines())
    try:
        return {bytes.fromhex(name): uuid_of(bytes.fromhex(now)) for name, now in pairs}
    except ValueError as error:
        raise NotPossible(f"process {guest.pid} names cards that cannot be") from error


def _pages(guest: Guest) -> list[Answer]:
    pages = [heard(guest, Verb.LIST, ANSWER_S)[0]]
    while (listed := sum(page.count for page in pages)) < pages[0].total and pages[-1].count:
        pages.append(heard(guest, Verb.LIST, ANSWER_S, first=listed)[0])
    return pages
