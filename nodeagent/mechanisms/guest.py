"""
Parking on real GPUs with the guest library: gate, export, copy by a worker, release, and back.

A part is all that one process holds on one card. Its name is the process's nonce and the card; its
index, which stands in the slot, is the list of its segments; its digest is the index's, and holds
while the gate is closed and no segment was taken away. Contents are verified by fingerprints of
their own, taken on the card: before and after the copy out, and after the copy in.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid
from nodeagent import processes
from nodeagent.gpuworker.client import Worker, WorkerAway, WorkerRefused
from nodeagent.gpuworker.driver import NOT_READY, OUT_OF_MEMORY
from nodeagent.mechanisms import Body, BodyGone, CardFull, Moved, NotPossible, NotYet, Part
from nodeagent.mechanisms.guests import Guest, GuestAway, Guests, closed
from nodeagent.mechanisms.guestwire import BATCH, Answer, Segment, State, Status, Verb
from nodeagent.mechanisms.slabs import Slabs
from nodeagent.pool import Damaged, Kept, Slot

_VERSION = 1
_COME_BACK_S = 3.0  # guests look for their agent five times a second
_ANSWER_S = 10.0
_COPY_S = 120.0  # a whole card over a slow bus
_PROBE_BYTES = 2**28
_AT_ONCE = (
    32  # segments handed over at a time: the first are copied while the next are on their way
)
_LIBRARY, _DRIVER = "libkybguest", "libcuda.so"


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
        return f"{self.guest.nonce.hex()}/{self.uuid}"

    @property
    def size(self) -> int:
        """Bytes of the card, when all is backed."""
        return sum(segment.size for segment in self.segments)

    @property
    def card(self) -> bytes:
        """The card as guests name it."""
        return self.segments[0].card

    def index(self) -> bytes:
        """The part's, as it stands in a slot."""
        listed = [[one.id, one.address, one.size] for one in self.segments]
        return orjson.dumps({"version": _VERSION, "epoch": self.epoch, "segments": listed})

    def digest(self) -> str:
        """Empty where the contents are not for sure what they were when the gate was closed."""
        whole = all(one.state is State.BACKED and not one.touched for one in self.segments)
        return _digest(self.index()) if whole and self.closed else ""

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


class GuestMechanism:
    """A `Mechanism`."""

    name = "guest"

    def __init__(
        self, guests: Guests, slabs: Slabs, worker_environment: Mapping[str, str] | None = None
    ) -> None:
        """Workers are started when first asked."""
        self._guests = guests
        self._slabs = slabs
        self._environment = worker_environment
        self._workers: dict[GpuUuid, Worker] = {}
        self._shut_in: dict[
            int, tuple[Guest, ...]
        ] = {}  # by the workload's pid, from lock to unlock

    def close(self) -> None:
        """End the workers; guests stay as they are."""
        for worker in self._workers.values():
            worker.close()
        self._guests.close()

    def lock(self, body: Body, limit: float) -> None:
        """As the port says. A workload that has not touched a card yet is stopped instead."""
        guests = self._of(body)
        if not guests:
            processes.freeze(body.pid)
            guests = self._of(body)
            if not guests:
                return
            processes.thaw(body.pid)
        until = time.monotonic() + limit
        try:
            for guest in guests:
                self._shut(guest, until)
            self._shut_in[body.pid] = guests
        except BaseException:
            for guest in guests:
                with suppress(Refused, Retry):
                    self._asked(guest, Verb.OPEN, _ANSWER_S)
            raise

    def _shut(self, guest: Guest, until: float) -> None:
        left = max(0.1, until - time.monotonic())
        answer = self._asked(guest, Verb.CLOSE, left)
        if answer.status:
            raise NotYet(f"process {guest.pid}: {answer.why or 'its gate does not close'}")
        for holding in _holdings(guest, self._listed(guest)):
            self._barrier(guest, holding.uuid, left)
            return

    def _barrier(self, guest: Guest, uuid: GpuUuid, left: float) -> None:
        """The driver's lock sees what passed the gate by. A driver that cannot lock this process
        (another process's memory in it, an old one) leaves the gate alone on guard."""
        try:
            self._worker(uuid).ask(
                {"op": "barrier", "pid": guest.pid, "milliseconds": int(left * 1000)},
                left + _ANSWER_S,
            )
        except WorkerRefused as error:
            if error.code == NOT_READY:
                raise NotYet("work that passed the gate by did not end") from error
        except WorkerAway as error:
            raise NotYet(str(error)) from error

    def unlock(self, body: Body, limit: float) -> None:
        """As the port says."""
        for guest in self._known(body):
            if self._asked(guest, Verb.OPEN, limit).status:
                raise NotPossible(f"process {guest.pid} is not whole; its gate stays closed")
        self._shut_in.pop(body.pid, None)
        processes.thaw(body.pid)

    def parts(self, body: Body) -> tuple[Part, ...]:
        """As the port says."""
        return tuple(one.part() for one in self._holdings_of(body))

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        """As the port says. Raises Refused where the contents changed meanwhile."""
        holding = self._holding(body, part.name)
        index = holding.index()
        slabs = self._slabs.take(_file(part.name), holding.size, slot.folder)
        wrong = self._pass(holding, slot, slabs, Verb.EXPORT, moved)
        if wrong:
            raise Refused(f"{wrong} chunks of part {part.name} were written while it was copied")
        content, digest = slot.write(part.name, iter([index]))
        return Kept(
            name=part.name, uuid=part.uuid, size=holding.size, content=content, digest=digest
        )

    def release(self, body: Body, part: Part, limit: float) -> None:
        """As the port says."""
        holding = self._holding(body, part.name)
        self._every(holding, Verb.RELEASE, limit)

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """As the port says. What does not arrive right is copied once more, then it is Damaged."""
        holding = self._holding(body, kept.name)
        _check(holding, b"".join(slot.read(kept.name)))
        slabs = self._slabs.taken(_file(kept.name), slot.folder)
        wrong = self._pass(holding, slot, slabs, Verb.BACK, moved)
        if wrong:
            wrong = self._pass(holding, slot, slabs, Verb.BACK, lambda _: None)
        if wrong:
            raise Damaged(f"{wrong} chunks of part {kept.name} do not have their fingerprints")
        self._every(holding, Verb.FILLED, _ANSWER_S)
        return kept.digest

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        """As the port says."""
        try:
            rates = self.rates(uuid, _PROBE_BYTES)
        except (Refused, Retry, OSError):
            return None
        return _PROBE_BYTES, _PROBE_BYTES / rates["park"]

    def rates(self, uuid: GpuUuid, size: int) -> dict[str, float]:
        """Bytes a second of plain pinned copies of `size` bytes, to `park` and to `resume`: the
        limit of what parking can reach. Raises Refused, Retry, OSError."""
        slabs = [str(slab) for slab in self._slabs.prepare(size)[: -(-size // self._slabs.size)]]
        replies = {
            way: self._worker(uuid).ask(
                {"op": "probe", "slabs": slabs, "out": way == "park"}, _COPY_S
            )
            for way in ("park", "resume")
        }
        return {way: reply["bytes"] / reply["seconds"] for way, reply in replies.items()}

    def prepare(self, uuid: GpuUuid, size: int) -> None:
        """Make and pin slabs ahead, so that the first park does not. Raises Refused, Retry."""
        slabs = [str(slab) for slab in self._slabs.prepare(size)]
        for first in range(0, len(slabs), 8):
            self._worker(uuid).ask({"op": "pin", "slabs": slabs[first : first + 8]}, _COPY_S)

    def left(self, body: Body) -> tuple[str, ...]:
        """What stays on the card when this workload is parked, in words."""
        lines = (self._asked(guest, Verb.LEFT, _ANSWER_S).text for guest in self._of(body))
        return tuple(line for text in lines for line in text.splitlines())

    def _pass(  # a copy's five ends
        self, holding: Holding, slot: Slot, slabs: tuple[Path, ...], verb: Verb, moved: Moved
    ) -> int:
        """Every segment through the worker, batch by batch. How many chunks were wrong."""
        worker, part = self._worker(holding.uuid), {"part": holding.name}
        begin = {
            "op": "begin",
            "out": verb is Verb.EXPORT,
            "total": holding.size,
            "slabs": [str(slab) for slab in slabs],
            "record": str(slot.folder / f"{_file(holding.name)}.fingerprints"),
        }
        try:
            worker.ask({**begin, **part}, _COPY_S)
            try:
                for first in range(0, len(holding.segments), _AT_ONCE):
                    moved(self._hand_over(holding, worker, verb, first))
                return int(worker.ask({"op": "finish", **part}, _COPY_S)["wrong_count"])
            finally:
                worker.ask({"op": "drop", **part}, _COPY_S)
        except WorkerAway as error:
            raise NotYet(str(error)) from error
        except WorkerRefused as error:
            raise (CardFull if error.code == OUT_OF_MEMORY else NotPossible)(str(error)) from error

    def _hand_over(self, holding: Holding, worker: Worker, verb: Verb, first: int) -> int:
        answer, descriptors = self._heard(
            holding.guest, verb, _ANSWER_S, card=holding.card, first=first, count=_AT_ONCE
        )
        try:
            _raise_for(answer, holding.guest)
            expected = holding.segments[first : first + _AT_ONCE]
            if [one.id for one in answer.segments] != [one.id for one in expected]:
                raise NotPossible(f"process {holding.guest.pid} changed its memory")
            sizes = [one.size for one in answer.segments]
            asked = {"op": "take", "part": holding.name, "sizes": sizes}
            worker.ask(asked, _COPY_S, descriptors)
        finally:
            closed(descriptors)
        return sum(sizes)

    def _every(self, holding: Holding, verb: Verb, limit: float) -> None:
        for first in range(0, len(holding.segments), BATCH):
            answer, _ = self._heard(holding.guest, verb, limit, card=holding.card, first=first)
            _raise_for(answer, holding.guest)

    def _worker(self, uuid: GpuUuid) -> Worker:
        return self._workers.setdefault(uuid, Worker(uuid, self._environment))

    def _of(self, body: Body) -> tuple[Guest, ...]:
        """Every guest of the workload. Raises NotYet where one should be here and is not."""
        tree = frozenset(processes.tree(body.pid))
        expected = frozenset(
            pid for pid in tree if self._guests.of(pid) is None and _uses_the_driver(pid)
        )
        if expected and not self._guests.await_all(expected, _COME_BACK_S):
            raise NotYet(f"the guests of processes {sorted(expected)} do not answer")
        found = (self._guests.of(pid) for pid in sorted(tree))
        return tuple(one for one in found if one is not None and processes.started(one.pid))

    def _known(self, body: Body) -> tuple[Guest, ...]:
        """As `_of`, without looking through all processes where the gates were closed by us."""
        guests = self._shut_in.get(body.pid, ())
        there = all(self._guests.of(guest.pid) is guest for guest in guests)
        return guests if guests and there else self._of(body)

    def _holdings_of(self, body: Body) -> tuple[Holding, ...]:
        return tuple(
            holding
            for guest in self._known(body)
            for holding in _holdings(guest, self._listed(guest))
        )

    def _holding(self, body: Body, name: str) -> Holding:
        for holding in self._holdings_of(body):
            if holding.name == name:
                return holding
        raise BodyGone(f"part {name} is not there any more")

    def _listed(self, guest: Guest) -> tuple[Answer, ...]:
        pages = [self._asked(guest, Verb.LIST, _ANSWER_S)]
        while sum(page.count for page in pages) < pages[0].total and pages[-1].count:
            first = sum(page.count for page in pages)
            pages.append(self._asked(guest, Verb.LIST, _ANSWER_S, first=first))
        return tuple(pages)

    def _asked(self, guest: Guest, verb: Verb, limit: float, first: int = 0) -> Answer:
        return self._heard(guest, verb, limit, first=first)[0]

    def _heard(
        self, guest: Guest, verb: Verb, limit: float, **which: Any
    ) -> tuple[Answer, list[int]]:
        try:
            return guest.ask(verb, limit, **which)
        except GuestAway as error:
            self._guests.forget(guest)
            if processes.started(guest.pid) is None:
                raise BodyGone(f"process {guest.pid} is gone") from error
            raise NotYet(str(error)) from error


def _holdings(guest: Guest, pages: tuple[Answer, ...]) -> tuple[Holding, ...]:
    """One for each card the guest has memory on, in the order the guest will hand it over."""
    by_card: dict[bytes, list[Segment]] = {}
    for page in pages:
        for segment in page.segments:
            by_card.setdefault(segment.card, []).append(segment)
    return tuple(
        Holding(
            guest=guest,
            uuid=GpuUuid(f"GPU-{UUID(bytes=card)}"),
            epoch=pages[0].epoch,
            closed=pages[0].closed,
            segments=tuple(segments),
        )
        for card, segments in by_card.items()
    )


def _raise_for(answer: Answer, guest: Guest) -> None:
    kinds: dict[int, Callable[[str], Exception]] = {OUT_OF_MEMORY: CardFull}
    if answer.status != Status.DONE:
        kind = kinds.get(answer.status, NotPossible)
        raise kind(f"process {guest.pid}: {answer.verb.name} failed with {answer.status}")


def _check(holding: Holding, index: bytes) -> None:
    """What was parked is what the process has addresses for."""
    try:
        listed = orjson.loads(index)["segments"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"the index of part {holding.name} cannot be read") from error
    if listed != [[one.id, one.address, one.size] for one in holding.segments]:
        raise NotPossible(f"process {holding.guest.pid} has other memory than was parked")


def _digest(index: bytes) -> str:
    return hashlib.blake2b(index, digest_size=32).hexdigest()


def _file(name: str) -> str:
    """A part's name as a file's: never a path."""
    return "guest-" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _uses_the_driver(pid: int) -> bool:
    """Whether a guest should be in this process: both libraries are mapped."""
    try:
        maps = (processes.PROC / str(pid) / "maps").read_text()
    except OSError:
        return False
    return _LIBRARY in maps and _DRIVER in maps
