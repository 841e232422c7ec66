"""
Real: libkybguest.so, the GPU worker, the `guest` mechanism, the pool. Faked: the driver and its
card (testbed/fakecuda). Observed: contents, what the card has in use, what is refused and how.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from kybernate.model.ids import GpuUuid, PodUid, WorkloadKey
from kybernate.runtime.clock import SystemClock
from nodeagent.disk.pool import Pool
from nodeagent.gpuworker import places
from nodeagent.gpuworker.driver import GRAIN
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.mechanisms import Body, copies
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.slabs import Slabs
from testbed import fakecuda, fakenccl
from testbed.assets import native
from testbed.assets.compiler import BuildFailed
from testbed.fakecuda.card import FakeCard

MIB = 2**20
SLAB, POOL = 4 * MIB, 1 << 30
PATIENCE_S = 60.0
_LAUNCHER = Path(__file__).with_name("launcher.py")
_PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture(scope="session")
def libraries():
    """The guest library and the folder of the fake driver."""
    try:
        return native.guest(), fakecuda.build()
    except BuildFailed as problem:
        if native.why_not():
            pytest.skip(native.why_not())
        raise problem


class Card:
    """The fake card's shared numbers, by their places in `struct card`."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def _number(self, at, kind, value=None):
        with self.path.open("r+b") as file:
            file.seek(at)
            if value is not None:
                file.write(struct.pack(kind, value))
                return value
            return struct.unpack(
                kind, file.read(struct.calcsize(kind)).ljust(8, b"\0")[: struct.calcsize(kind)]
            )[0]

    @property
    def used(self):
        return self._number(8, "<Q")

    @property
    def size(self):
        return self._number(0, "<Q")

    def resize(self, size):
        self._number(0, "<Q", size)

    def endless(self, on):
        self._number(16, "<i", int(on))

    def flip_next(self):
        self._number(20, "<i", 1)


@dataclass
class Told:
    """A running program.py. A call that the gate holds is waited for with `later`."""

    process: subprocess.Popen
    team: str = "team"

    def __getattr__(self, name):
        return lambda *arguments: self.ask(name, *arguments)

    def send(self, name, *arguments):
        self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the program ended: {self.process.wait()}")
        word, value = json.loads(line)
        if word != "ok":
            raise RuntimeError(value)
        return value

    def ask(self, name, *arguments):
        self.send(name, *arguments)
        return self.receive()

    def later(self, name, *arguments):
        """Ask without waiting. What it answers, once it does, is in `.answers`."""
        self.send(name, *arguments)
        waiting = Later(self)
        waiting.start()
        return waiting

    @property
    def body(self):
        return Body(
            key=WorkloadKey(self.team, "model"),
            uid=PodUid(f"u-{self.process.pid}"),
            pid=self.process.pid,
            gpus=(),
        )


class Rank(Told):
    """One process of a job."""

    def __init__(self, source, target, job):
        super().__init__(types.SimpleNamespace(stdin=source, stdout=target, wait=lambda: "ended"))
        self._job = job

    @property
    def body(self):
        return self._job.body


class Job(Told):
    """Processes below one launcher, each on a card of its own."""

    def __init__(self, process, pairs, gpus):
        super().__init__(process)
        self._gpus = gpus
        self.ranks = [Rank(source, target, self) for source, target in pairs]
        self.pids = [rank.start() for rank in self.ranks]

    @property
    def body(self):
        return replace(super().body, gpus=self._gpus)

    def each(self, name, *arguments):
        """Ask all of them, and then listen."""
        for rank in self.ranks:
            rank.send(name, *arguments)
        return [rank.receive() for rank in self.ranks]

    def goes_on(self):
        """All ranks that train have made another step."""
        until = time.monotonic() + PATIENCE_S
        before = self._slowest()
        while self._slowest() <= before:
            assert time.monotonic() < until, "the ranks do not go on"
            threading.Event().wait(0.01)

    def _slowest(self):
        return min(told["steps"] for told in self.each("trained"))

    def join(self):
        """One communicator of all."""
        unique = self.ranks[0].unique_id()
        for number, rank in enumerate(self.ranks):
            rank.send("join", unique, len(self.ranks), number)
        return [rank.receive() for rank in self.ranks]


class Later(threading.Thread):
    """Waits for a program's answer."""

    def __init__(self, told):
        super().__init__(daemon=True)
        self._told = told
        self.answers = []

    def run(self):
        self.answers.append(self._told.receive())

    def answer(self):
        self.join(PATIENCE_S)
        assert not self.is_alive(), "the program does not go on"
        return self.answers[0]


class Node:
    """What an agent has, with small slabs, on one card: the fake one, or the machine's first."""

    told = Told

    def __init__(
        self, folder, libraries, *, real=False, limit=POOL, agent=True, slab=SLAB, cards=1
    ):
        self.folder, self.limit, self.slab = folder, limit, slab
        self.library, self._driver = libraries
        self._real = real
        self.cards = [Card(folder / f"card{number or ''}") for number in range(cards)]
        self.card = self.cards[0]
        self.gpus = (GpuUuid(fakecuda.UUID),)
        for number, one in enumerate(self.cards[1:], 1):
            uuid = UUID(int=(0xCD << 120) + number)
            FakeCard(one.path).be(uuid)
            self.gpus += (GpuUuid(f"GPU-{uuid}"),)
        self.mechanism, self.pool = None, None
        if agent:  # else it is another process's
            self.restart()

    @property
    def environment(self):
        if self._real:
            return dict(os.environ)
        return {
            **os.environ,
            "LD_LIBRARY_PATH": f"{self._driver}:{fakenccl.build()}",
            "KYB_FAKE_CARD": ":".join(str(one.path) for one in self.cards),
            "KYB_FAKE_NCCL": str(self.folder),
        }

    def restart(self):
        """The agent, as after its death: nothing in memory is kept."""
        if self.mechanism:
            self.mechanism.close()
        folder = self.folder / "pool"
        chunks = Chunks(Slabs(folder / ".chunks", size=self.slab), self.limit)
        self.bulk = BulkOfChunks(folder, chunks)
        self.pool = Pool(folder, self.limit, self.bulk)
        self.mechanism = GuestMechanism(
            Guests(self.folder / "g.sock"),
            self.bulk,
            self.folder / "workers",
            Freezer(SystemClock(), Cgroups()),
            Cgroups(),
            self.environment,
        )

    @contextmanager
    def program(self, *, guest=True, **more):
        """A program that has started, as a guest or without the library."""
        preloaded = {
            "LD_PRELOAD": str(self.library),
            "KYB_GUEST_SOCKET": str(self.folder / "g.sock"),
        }
        environment = {**self.environment, **(preloaded if guest else {}), **more}
        process = subprocess.Popen(
            [sys.executable, str(_PROGRAM)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        told = Told(process)
        try:
            told.start()
            yield told
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
            if self.pool:
                self.pool.free(told.body.uid)

    @contextmanager
    def job(self, ranks=2, **more):
        """A job of so many ranks below one launcher; all are guests."""
        environment = {
            **self.environment,
            "LD_PRELOAD": str(self.library),
            "KYB_GUEST_SOCKET": str(self.folder / "g.sock"),
            "CARDS": str(len(self.cards)),
            **more,
        }
        inputs, outputs = [os.pipe() for _ in range(ranks)], [os.pipe() for _ in range(ranks)]
        theirs = [(i[0], o[1]) for i, o in zip(inputs, outputs, strict=True)]
        process = subprocess.Popen(
            [sys.executable, str(_LAUNCHER), str(_PROGRAM), *(f"{i}:{o}" for i, o in theirs)],
            env=environment, pass_fds=[end for pair in theirs for end in pair],
        )  # fmt: skip
        for end in (end for pair in theirs for end in pair):
            os.close(end)
        pairs = [
            (os.fdopen(i[1], "w"), os.fdopen(o[0])) for i, o in zip(inputs, outputs, strict=True)
        ]
        made = None
        try:
            made = Job(process, pairs, self.gpus)
            yield made
        finally:
            for pid in made.pids if made else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
            for source, target in pairs:
                with suppress(OSError):
                    source.close()
                target.close()
            if made:
                self.pool.free(made.body.uid)

    def park(self, told):
        """Lock, copy out, release. The slot and what is kept in it."""
        body = told.body
        self.mechanism.lock(body, PATIENCE_S)
        slot, kept = self.copy_out(body)
        for part in self.mechanism.parts(body):
            self.mechanism.release(body, part, PATIENCE_S)
        return slot, kept

    def copy_out(self, body):
        parts = self.mechanism.parts(body)
        slot = self.pool.reserve(body.uid, sum(part.size for part in parts))
        kept = tuple(self.mechanism.copy_out(body, p, slot, lambda _: None) for p in parts)
        assert [one.digest for one in kept] == [part.digest for part in parts]
        slot.seal(kept)
        return slot, kept

    def flip(self, slot, at):
        """Change a bit of a part's byte `at` in the pool; `slot` may be a folder."""
        (path,) = getattr(slot, "folder", slot).glob("*.copy")
        place = copies.read(path).places[at // GRAIN]
        number, inside = divmod(places.begins(place), self.slab)
        (slab,) = (one for one in self.bulk.chunks.slabs.all() if one.number == number)
        with slab.path.open("r+b") as file:
            at = inside + at % GRAIN % places.size(place)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 4]))

    def resume(self, told, slot, kept):
        """Copy in, verified, and open."""
        for one in kept:
            digest = self.mechanism.copy_in(told.body, one, slot, lambda _: None)
            assert digest == one.digest
        self.mechanism.unlock(told.body, PATIENCE_S)
        self.pool.retire(told.body.uid)

    def close(self):
        self.mechanism.dismiss()
        self.mechanism.close()


@pytest.fixture(scope="module")
def node(libraries):
    """One agent for a file's tests: its worker takes a second to start."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-g-"))
    made = Node(folder, libraries)
    with made.program() as told:  # the worker keeps some of the card from its first copy on
        told.alloc(2 * MIB)
        made.resume(told, *made.park(told))
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def node_on():
    """Makes a Node."""
    return Node
