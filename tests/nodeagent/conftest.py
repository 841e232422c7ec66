"""
`node`: one simulated GPU and a real agent; `kybernate/testing/agentnode.py` says what is real.
`desk`: what a story needs, with a card that is a dictionary; journal and pool are real files.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from kybernate.model.gpu import Seat
from kybernate.model.ids import GpuUuid, GroupName, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.stores.disk import Disk
from kybernate.stores.port import Store as AnyStore
from kybernate.stores.ram import Ram
from kybernate.testing.agentnode import PROFILES, AgentNode
from kybernate.testing.clock import FakeClock
from nodeagent import images
from nodeagent.cellar import Cellar, secret_in
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store
from nodeagent.depot import Depot
from nodeagent.disk.journal import FileJournal, Journal
from nodeagent.disk.pool import Kept, Pool, Slot
from nodeagent.disk.records import Mark, Record, Terms
from nodeagent.images import Dumped, Unfit
from nodeagent.linux import processes
from nodeagent.linux.freezer import Means, NotFrozen
from nodeagent.lives.phases import Stopwatch
from nodeagent.mechanisms import Body, Moved, Part, Stands
from nodeagent.stories import park
from nodeagent.stories.story import Limits, Story, Tools

CARD = GpuUuid("GPU-0")


@pytest.fixture
def node() -> Iterator[AgentNode]:
    """The node, its agent not started yet. Its folder is short: unix sockets' paths are."""
    with tempfile.TemporaryDirectory(prefix="kyb-") as folder, AgentNode(Path(folder)) as started:
        yield started


@pytest.fixture
def two_cards() -> Iterator[AgentNode]:
    """As `node`, with two cards and seats on one and on both."""
    profiles = PROFILES + (
        "  - {name: gpu-2x-seat, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 2}\n"
    )
    with (
        tempfile.TemporaryDirectory(prefix="kyb-") as folder,
        AgentNode(Path(folder), cards=2, profiles=profiles) as started,
    ):
        yield started


class FakeMechanism:
    """A card in a dictionary: parts by name, each with contents or None (not backed).

    `fail` maps a method to the errors its next calls raise; `log` is what was done.
    """

    name = "fake"

    def __init__(self, freezer: "FakeFreezer") -> None:
        self._freezer = freezer
        self.where = Stands.SLOT
        self.vram: dict[str, bytes | None] = {"weights": b"w" * 4096, "cache": b"c" * 1024}
        self.locked = False
        self.fail: dict[str, list[Exception]] = {}
        self.log: list[str] = []

    def stands(self, body: Body) -> Stands:
        return self.where

    def lock(self, body: Body, limit: float) -> None:
        self._did("lock")
        self.locked = True

    def unlock(self, body: Body, limit: float) -> None:
        self._did("unlock")
        assert None not in self.vram.values(), "never opened over missing contents"
        self.locked = False

    def parts(self, body: Body) -> tuple[Part, ...]:
        return tuple(
            Part(
                name=name, uuid=CARD, size=2**30, content=len(content or b""),
                backed=content is not None, digest=_digest(content) if content else "",
            )
            for name, content in self.vram.items()
        )  # fmt: skip

    def copy_out(self, body: Body, part: Part, slot: Slot, moved: Moved) -> Kept:
        self._did(f"copy_out {part.name}")
        assert self.locked
        size, digest = slot.write(part.name, iter([self.vram[part.name] or b""]))
        moved(part.size)
        return Kept(name=part.name, uuid=CARD, size=part.size, content=size, digest=digest)

    def release(self, body: Body, part: Part, limit: float) -> None:
        self._did(f"release {part.name}")
        assert self.locked
        self.vram[part.name] = None

    def copy_in(self, body: Body, kept: Kept, slot: Slot, moved: Moved) -> str:
        self._did(f"copy_in {kept.name}")
        assert self.locked
        content = b"".join(slot.read(kept.name))
        self.vram[kept.name] = content
        moved(kept.size)
        return _digest(content)

    def let_go(self, body: Body, limit: float) -> str:
        self._did("let_go")
        assert self.locked
        assert not any(self.vram.values()), "only what is out of VRAM goes"
        return ",".join(self.vram)

    def adopt(self, body: Body, known: str) -> None:
        self._did("adopt", stands=True)
        self.vram = dict.fromkeys(known.split(","))
        self.locked = True

    def forget(self, body: Body) -> None:
        self.log.append("forget")

    def probe(self, uuid: GpuUuid) -> tuple[int, float] | None:
        return None

    def _did(self, what: str, *, stands: bool = False) -> None:
        self.log.append(what)
        assert stands or not self._freezer.stands, "a driver is never called for a frozen process"
        waiting = self.fail.get(what.split()[0])
        if waiting:
            raise waiting.pop(0)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


CONFIG = {
    "process": {"args": ["serve"]},
    "annotations": {"io.kubernetes.cri.image-name": "model:1"},
}


class FakeImages:
    """`ProcessImages` of one file. `stands` in the way, `breaks` the next dump or restoration."""

    def __init__(self, freezer: "FakeFreezer") -> None:
        self._freezer = freezer
        self.stands: list[Unfit] = []
        self.breaks: list[Exception] = []
        self.log: list[str] = []

    def unfit(self, body: images.Body) -> tuple[Unfit, ...]:
        return tuple(self.stands)

    def dump(self, body: images.Body, into: Path) -> Dumped:
        assert self._freezer.stands, "an image is made of what stands still"
        into.mkdir(parents=True)
        (into / "pages").write_bytes(b"p" * 100)
        self._break()
        self.log.append("dump")
        return Dumped(folder=into, size=100, facts={})

    def woken(self, body: images.Body) -> None:
        self.log.append("woken")

    def restoration(self, image: Path, bundle: Path) -> dict[str, str]:
        assert (image / "pages").read_bytes() == b"p" * 100
        self._break()
        self.log.append("restoration")
        return {"image": str(image), "work": str(bundle), "changed": ""}

    def _break(self) -> None:
        if self.breaks:
            raise self.breaks.pop(0)


class FakeCards:
    """`Cards` with as much room as it is told."""

    def __init__(self) -> None:
        self.room = 80 * 2**30
        self.held = 0

    def free(self, uuid: GpuUuid) -> int:
        return self.room

    def held_by(self, body: Body) -> int:
        return self.held


class FakeFreezer:
    """`Freezing` that freezes nobody: records are of the test's own process."""

    def __init__(self) -> None:
        self.stands = self.fails = False

    def freeze(self, pid: int, container_id: str) -> Means:
        if self.fails:
            raise NotFrozen("it did not come to a stand")
        self.stands = True
        return Means.SIGNALS

    def thaw(self, pid: int, container_id: str) -> None:
        self.stands = False

    def frozen(self, pid: int, container_id: str) -> bool:
        return self.stands


class Passing(FakeClock):
    """Whoever waits finds that the time has passed."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """At once."""
        self.advance(seconds)
        return event.is_set()


class Desk:
    """Everything a story needs, on a fake card and a real disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.freezer = FakeFreezer()
        self.mechanism, self.cards = FakeMechanism(self.freezer), FakeCards()
        self.images = FakeImages(self.freezer)
        self.clock = FakeClock()
        self.journal = FileJournal(folder / "journal")
        self.pool = Pool(folder / "pool", limit=100 * 2**30)
        self.told: list[tuple[str, int, int]] = []
        self.store_below: AnyStore = Ram(2**40, self.clock.now)
        self.use_depot()
        self.use_cellar()

    def use_depot(self, store: AnyStore | None = None, limit: int = 100 * 2**30) -> None:
        """Another one over this store, or the one that there is, as an agent finds it that starts
        now."""
        self.store_below = store or self.store_below
        secret = secret_in(self.folder / "pool")
        self.depot = Depot(self.store_below, NodeName("node"), limit, secret, Passing())

    def use_cellar(
        self, limit: int = 100 * 2**30, free: int = 2**40, disk: Disk | None = None
    ) -> None:
        """Another one in the same place: its limit, what the disk has left, the disk."""
        secret = secret_in(self.folder / "pool")
        self.cellar = Cellar(
            self.folder / "cellar", limit, secret, self.clock, free=lambda _: free, disk=disk
        )
        self.use_journal(self.journal)

    def use_disk(self, disk: Disk) -> None:
        """Have the cellar on this disk."""
        self.use_cellar(disk=disk)

    def use_journal(self, journal: Journal) -> None:
        """Write into this one."""
        self.tools = Tools(
            journal=journal, pool=self.pool, cellar=self.cellar, depot=self.depot,
            mechanism=self.mechanism, cards=self.cards,
            clock=self.clock, freezer=self.freezer, limits=Limits(room=0.0, pause=0.0, let_go=0.0),
        )  # fmt: skip

    def record(self, mark: Mark = Mark.ACTIVE, **fields: Any) -> Record:
        """A workload's record: of this very process, so that it lives."""
        started = processes.started(os.getpid())
        assert started is not None
        whole = {
            "key": WorkloadKey("default", "a"), "uid": PodUid("uid-a"),
            "seat": Seat(GroupName("G0"), 0), "container": "model", "container_id": "c1",
            "pid": os.getpid(), "pid_started": started, "exec_fifo": str(self.folder / "fifo"),
            "boot": processes.boot_id(), "mark": mark, "since": self.clock.now(),
            "terms": Terms(resource=ResourceName("kyb.ai/gpu-1x-seat"), vram=4 * 2**30),
        }  # fmt: skip
        return self.journal.write(Record(**whole | fields))

    def story(self, record: Record | None = None) -> Story:
        """A story about it."""
        record = record or self.record()
        body = Body(key=record.key, uid=record.uid, pid=record.pid, gpus=(CARD,))
        return Story(
            tools=self.tools, body=body, record=record, watch=Stopwatch(self.clock),
            tell=lambda *progress: self.told.append(progress), need={CARD: record.terms.vram},
        )  # fmt: skip

    def store(self, limit: int = 2**40) -> Store:
        """The node's checkpoints; what an agent before us drafted is gone. The workload is this
        very process, whose size is that of all tests before: room must not depend on it."""
        folder = self.folder / "checkpoints"
        return Store(folder, Keys.own(self.folder / "keys"), limit, spare=0)

    def parked(self) -> Record:
        """A workload's record that is parked, of a container that runc knows."""
        runc, bundle = self.folder / "runc", self.folder / "bundle"
        for made in (runc / "c1", bundle):
            made.mkdir(parents=True, exist_ok=True)
        labels = {"config": {"labels": [f"bundle={bundle}"]}}
        (runc / "c1" / "state.json").write_bytes(orjson.dumps(labels))
        (bundle / "config.json").write_bytes(orjson.dumps(CONFIG))
        record = self.record(exec_fifo=str(runc / "c1" / "exec.fifo"))
        return park.park(self.story(record))

    def restart(self) -> None:
        """Everything as an agent finds it that starts now."""
        self.pool = Pool(self.folder / "pool", limit=self.pool.limit)
        self.use_depot()
        self.use_cellar()

    def now(self, **changes: Any) -> Record:
        """What the journal says."""
        (record,), _ = self.journal.read_all()
        return replace(record, **changes)

    def on_disk(self) -> Mark:
        """How far the journal says it is."""
        (record,), _ = self.journal.read_all()
        return record.mark


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk to tell stories at."""
    return Desk(tmp_path)
