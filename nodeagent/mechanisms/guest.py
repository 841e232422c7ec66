"""
Parking on real GPUs with the guest library: gate, export, copy by a worker, release, and back.

A part is all that one process holds on one card. Its name is the process's nonce and the card; its
index, which stands in the slot, is the list of its segments; its digest is the index's, and holds
while the gate is closed and no segment was taken away. Contents are chunks of the pool (`bulk`),
and are verified by fingerprints of their own, taken on the card: before and after the copy out, and
after the copy in.
"""

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid
from nodeagent.disk.pool import Damaged, Kept, Slot
from nodeagent.eligibility import judging
from nodeagent.gpuworker.client import Worker, WorkerAway, WorkerRefused
from nodeagent.gpuworker.driver import GRAIN, NOT_READY
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezing
from nodeagent.mechanisms import (
    Body,
    BodyGone,
    Moved,
    NotPossible,
    NotYet,
    Part,
    Stands,
    differences,
    halting,
)
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.collectives import elsewhere
from nodeagent.mechanisms.copies import named
from nodeagent.mechanisms.guestcopy import Tally, Way
from nodeagent.mechanisms.guests import Guest, Guests
from nodeagent.mechanisms.guestwire import Answer, Calls, State, Verb, calls
from nodeagent.mechanisms.halting import at_once
from nodeagent.mechanisms.handing import COPY_S
from nodeagent.mechanisms.holdings import ANSWER_S, Holding, heard, holdings
from nodeagent.mechanisms.pressing import InTheBackground, Press
from nodeagent.mechanisms.quiet import Quiet

_LOOK_S = 0.2
CALLS_S = 0.5
_COME_BACK_S = 10.0  # guests look for their agent five times a second; a busy node is slower
_PROBE_BYTES = 2**28
_TALLIES = 64
_NO_IMAGE = "a context on a real GPU cannot be put into an image yet"
_THREAD = "kyb-guest\n"  # of the guest library, as the kernel has its name


class GuestMechanism:
    """A `Mechanism`."""

    name = "guest"

    def __init__(
        self,
        guests: Guests,
        bulk: BulkOfChunks,
        workers: Path,
        freezer: Freezing,
        cgroups: Cgroups,
        worker_environment: Mapping[str, str] | None = None,
    ) -> None:
        """Those workers whose sockets are below `workers` are taken up, which has them end what
        they were doing: from then on free chunks are free. Others are started when first asked."""
        self._guests = guests
        self._bulk, self._folder = bulk, workers
        self._freezer, self._cgroups = freezer, cgroups
        self._environment = worker_environment
        self._workers: dict[GpuUuid, Worker] = {}
        self._shut_in: dict[int, tuple[Guest, ...]] = {}  # by workload's pid, until unlocked
        self.tallies: deque[Tally] = deque(maxlen=_TALLIES)  # of the latest copies
        for path in sorted(workers.glob("*.sock")):
            self._worker(GpuUuid(path.stem)).adopt()
        self._quiet = Quiet()
        self.press = Press(bulk, self._any, self._quiet)
        self._pressing = InTheBackground(self.press)

    def close(self) -> None:
        """Go away; guests stay as they are, and workers wait for the next agent."""
        self._pressing.stop()
        for worker in self._workers.values():
            worker.close()
        self._guests.close()

    def press_in_the_background(self) -> None:
        """Make what the pool holds smaller, from now on, while nothing moves."""
        self._pressing.start()

    def dismiss(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.dismiss()

    def stands(self, body: Body) -> Stands:  # noqa: ARG002 - the port's
        """In chunks of the pool."""
        return Stands.BULK

    def lock(self, body: Body, limit: float) -> None:
        """As the port says. A workload that has not touched a card yet is frozen instead."""
        guests = self._of(body)
        if not guests:
            self._freezer.freeze(body.pid, body.container_id)
            guests = self._of(body)
            if not guests:
                return
            self._freezer.thaw(body.pid, body.container_id)
        until = time.monotonic() + limit
        try:
            halting.halt(guests, until)
            at_once(lambda guest: self._shut(guest, until), guests)
            self._shut_in[body.pid] = guests
        except BaseException:
            at_once(_let_run, guests)
            raise

    def _shut(self, guest: Guest, until: float) -> None:
        left = max(0.1, until - time.monotonic())
        answer = _asked(guest, Verb.CLOSE, left)
        if answer.status:
            raise NotYet(f"process {guest.pid}: {answer.why or 'its gate does not close'}")
        for holding in holdings(guest)[:1]:
            self._barrier(guest, holding.uuid, left)

    def _barrier(self, guest: Guest, uuid: GpuUuid, left: float) -> None:
        """The driver's lock sees what passed the gate by. A driver that cannot lock this process
        (another process's memory in it, an old one) leaves the gate alone on guard."""
        asked = {"op": "barrier", "pid": guest.pid, "milliseconds": int(left * 1000)}
        try:
            self._worker(uuid).ask(asked, left + ANSWER_S)
        except WorkerRefused as error:
            if error.code == NOT_READY:
                raise NotYet("work that passed the gate by did not end") from error
        except WorkerAway as error:
            raise NotYet(str(error)) from error

    def unlock(self, body: Body, limit: float) -> None:
        """As the port says. Of several processes none runs before all are whole."""
        guests = self._known(body)
        if len(guests) > 1:
            at_once(_check_whole, guests)
        for guest in guests:
            if _asked(guest, Verb.OPEN, limit).status:
                raise NotPossible(f"process {guest.pid} is not whole; its gate stays closed")
        self._shut_in.pop(body.pid, None)
        self._freezer.thaw(body.pid, body.container_id)

    def parts(self, body: Body) -> tuple[Part, ...]:
        """As the port says."""
        return tuple(one.part() for one in self._holdings(body))

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        """As the port says. Raises Refused where the contents changed meanwhile."""
        way = self._way(body, part.name, slot)
        with self._quiet.moving():
            tally = self._told(way.out(self._bulk.key(body.key.namespace), moved))
        if tally.wrong:
            raise Refused(f"{tally.wrong} chunks of part {part.name} were written meanwhile")
        holding = self._holding(body, part.name)
        content, digest = slot.write(part.name, iter([holding.index()]))
        return Kept(
            name=part.name, uuid=part.uuid, size=holding.size, content=content, digest=digest
        )

    def release(self, body: Body, part: Part, limit: float) -> None:
        """As the port says."""
        self._holding(body, part.name).every(Verb.RELEASE, limit)

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        """As the port says. What does not arrive right is copied once more, then it is Damaged."""
        way = self._way(body, kept.name, slot)
        with self._quiet.moving():
            wrong = self._told(way.back(moved)).wrong
            if wrong:
                wrong = self._told(way.back(lambda _: None)).wrong
        if wrong:
            raise Damaged(f"{wrong} chunks of part {kept.name} do not have their fingerprints")
        way.holding.every(Verb.FILLED, ANSWER_S)
        return kept.digest

    def _way(self, body: Body, name: str, slot: Slot) -> Way:
        holding = self._holding(body, name)
        worker = self._worker(holding.uuid)
        return Way(worker=worker, holding=holding, bulk=self._bulk, slot=slot, file=named(name))

    def _told(self, tally: Tally) -> Tally:
        self.tallies.append(tally)
        return tally

    def let_go(self, body: Body, limit: float) -> str:  # noqa: ARG002 - the port's
        """Never: a context on a real GPU cannot be put into an image yet."""
        raise NotPossible(_NO_IMAGE)

    def adopt(self, body: Body, known: str) -> None:  # noqa: ARG002 - the port's
        """Never."""
        raise NotPossible(_NO_IMAGE)

    def forget(self, body: Body) -> None:
        """As the port says; of its memory the driver takes care."""
        self._shut_in.pop(body.pid, None)

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
        node = self._worker(uuid).node()
        places = self._bulk.take(-(-size // GRAIN), node)
        asked = {"op": "probe", "runs": [one[1:] for one in differences.runs(places, 0)]}
        try:
            replies = {
                way: self._worker(uuid).ask({**asked, "out": way == "park"}, COPY_S)
                for way in ("park", "resume")
            }
        finally:
            self._bulk.chunks.let(places)
        return {way: reply["bytes"] / reply["seconds"] for way, reply in replies.items()}

    def prepare(self, uuid: GpuUuid, size: int) -> None:
        """Make and pin slabs ahead, so that the first park does not. Raises Refused, Retry."""
        worker = self._worker(uuid)
        places = self._bulk.take(-(-size // GRAIN), worker.node())
        self._bulk.chunks.let(places)
        for slab in sorted({place // self._bulk.chunks.each for place in places}):
            worker.ask({"op": "pin", "slabs": [slab]}, COPY_S)

    def pinned(self, uuid: GpuUuid) -> int:
        """How many slabs a card's worker has pinned. Raises Refused, Retry."""
        return int(self._worker(uuid).ask({"op": "about"}, ANSWER_S)["pinned"])

    def left(self, body: Body) -> tuple[str, ...]:
        """What stays on the card when this workload is parked: pieces, bytes, what it is."""
        guests = self._of(body)
        texts = (_asked(guest, Verb.LEFT, ANSWER_S).text for guest in guests)
        lines = tuple(line for text in texts for line in text.splitlines())
        away = elsewhere(halting.standings(guests))
        return (*lines, f"{away} 0 {judging.RANKS_ELSEWHERE}") if away else lines

    def here(self, body: Body) -> bool:
        """Whether any guest of the workload is connected. Quick, and changes nothing."""
        return bool(self._mine(body))

    def calls(self, body: Body) -> tuple[Calls, ...] | None:
        """What its guests tell of their calls into the driver; None where one of them does not. A
        workload that runs only: nobody is thawed for this. Raises GuestAway."""
        told = [calls(heard(guest, Verb.LEFT, CALLS_S)[0]) for guest in self._mine(body)]
        known = tuple(one for one in told if one is not None)
        return known if len(known) == len(told) else None

    def guests(self, body: Body) -> tuple[Guest, ...]:
        """Those of a workload, able to answer: a parked one stands, and goes on behind its gate.
        Raises NotYet."""
        found = self._known(body)
        if found and self._freezer.frozen(body.pid, body.container_id):
            self._freezer.thaw(body.pid, body.container_id)
        return found

    def worker(self, uuid: GpuUuid) -> Worker:
        """A card's, for what is done beside memory."""
        return self._worker(uuid)

    def workers(self) -> Mapping[str, int]:
        """The workers' process numbers by card."""
        return {uuid: worker.pid for uuid, worker in self._workers.items() if worker.pid}

    def _any(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Of any card's worker, where there is one: all of them have the pool."""
        worker = next((one for one in self._workers.values() if one.pid), None)
        return worker.ask(asked, ANSWER_S) if worker else None

    def _worker(self, uuid: GpuUuid) -> Worker:
        slabs = self._bulk.chunks.slabs
        first = {"op": "pool", "folder": str(slabs.folder), "size": slabs.size}
        made = Worker(uuid, self._folder, first, self._environment)
        return self._workers.setdefault(uuid, made)

    def _of(self, body: Body) -> tuple[Guest, ...]:
        """Every guest of the workload. Raises NotYet where one should be here and is not."""
        missing = self._missing(body)
        if missing:  # a parked one stands; behind its gate it may go on to say hello
            self._freezer.thaw(body.pid, body.container_id)
        until = time.monotonic() + _COME_BACK_S
        while missing and not self._guests.await_all(missing, _LOOK_S):
            missing = self._missing(body)  # one that hung up is about to end
            if missing and time.monotonic() > until:
                raise NotYet(f"the guests of processes {sorted(missing)} do not answer")
        return self._mine(body)

    def _missing(self, body: Body) -> frozenset[int]:
        tree = processes.tree(body.pid)
        return frozenset(pid for pid in tree if self._guests.of(pid) is None and _is_guest(pid))

    def _mine(self, body: Body) -> tuple[Guest, ...]:
        """Those of the workload that are connected and live."""
        alive = (one for one in self._guests.all() if processes.started(one.pid) is not None)
        return processes.of_container(alive, body.pid, body.container_id, self._cgroups)

    def _known(self, body: Body) -> tuple[Guest, ...]:
        """As `_of`, without looking through all processes where the gates were closed by us."""
        guests = self._shut_in.get(body.pid, ())
        there = all(self._guests.of(guest.pid) is guest for guest in guests)
        return guests if guests and there else self._of(body)

    def _holdings(self, body: Body) -> tuple[Holding, ...]:
        """Those whose gates a former agent closed, or that came with an image, are known from here
        on as if we had closed them: all processes are looked through once, not at each step."""
        guests = self._known(body)
        found = [holdings(guest) for guest in guests]
        if guests and all(held and held[0].closed for held in found):
            self._shut_in[body.pid] = guests
        return tuple(one for held in found for one in held)

    def _holding(self, body: Body, name: str) -> Holding:
        for holding in self._holdings(body):
            if holding.name == name:
                return holding
        raise BodyGone(f"part {name} is not there any more")


def _let_run(guest: Guest) -> None:
    with suppress(Refused, Retry):
        _asked(guest, Verb.OPEN, ANSWER_S)


def _check_whole(guest: Guest) -> None:
    if any(one.state is not State.BACKED for held in holdings(guest) for one in held.segments):
        raise NotPossible(f"process {guest.pid} is not whole; all gates stay closed")


def _asked(guest: Guest, verb: Verb, limit: float) -> Answer:
    return heard(guest, verb, limit)[0]


def _is_guest(pid: int) -> bool:
    """Whether this process will say hello: its library has begun to look for us, at cuInit. One
    that only loaded the driver, or was forked for other work, holds nothing of a card."""
    with suppress(OSError):
        for task in (processes.PROC / str(pid) / "task").iterdir():
            with suppress(OSError):  # threads end at any time
                if (task / "comm").read_text() == _THREAD:
                    return True
    return False
