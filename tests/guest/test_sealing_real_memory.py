"""
The agent's stories of sealing and waking, with memory of the guest's and real CRIU.

Real: the guest library, the worker, the mechanism, pool, store, journal, CRIU. Faked: the driver,
and runc: what it would ask of CRIU is asked of it here.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from kybernate.artifacts.facts import Facts
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.gpu import Seat
from kybernate.model.ids import (
    GpuUuid,
    GroupName,
    NodeName,
    PodUid,
    ResourceName,
    WorkloadKey,
)
from kybernate.runtime.clock import SystemClock
from nodeagent.cellar import Cellar
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store
from nodeagent.depot import Depot
from nodeagent.disk.journal import FileJournal
from nodeagent.disk.records import Mark, Record, Terms
from nodeagent.images import Dumped, fitness
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.lives.phases import Stopwatch
from nodeagent.mechanisms import Body
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.moving import Notes
from nodeagent.stories import park, resume, seal, wake
from nodeagent.stories.story import Story, Tools
from testbed import fakecuda
from testbed.assets import native
from testbed.fakecuda.card import FakeCard
from testbed.node import programs

MIB = 2**20
HERE = GpuUuid(fakecuda.UUID)
OTHER = GpuUuid("GPU-0123cdef-0000-1111-2222-333333333333")
MADE_IN = Fingerprint(
    kernel="6.1", architecture="x", boot="b", image="m:1", command=("serve",), mechanism="guest"
)

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("real_programs")]


class CriuImages:
    """`ProcessImages` of processes without a container."""

    def unfit(self, body):
        return fitness.of_tree(body.pid)

    def dump(self, body, into):
        into.mkdir()
        processes.thaw(body.pid)
        self._criu("dump", into, "--tree", str(body.pid), "--ext-unix-sk", "--leave-stopped")
        return Dumped(folder=into, size=0, facts={})

    def restoration(self, image, bundle):
        return {}

    def restore(self, image, into):
        self._criu(
            "restore", image, "--restore-detached", "--leave-stopped", "--pidfile", str(into)
        )
        return int(into.read_text())

    def woken(self, body):
        pass

    def _criu(self, verb, folder, *more):
        argv = [
            programs.find().criu, verb, "--images-dir", str(folder), *more, "--log-file",
            str(folder.with_name(f"{verb}.log")), "--libdir", native.criu_plugins(),
            "--network-lock", "skip",
        ]  # fmt: skip
        log = Path(argv[argv.index("--log-file") + 1])
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        said = log.read_text()[-2000:] if log.exists() else done.stderr
        log.unlink(missing_ok=True)
        assert not done.returncode, said


class Cards:
    """What the fake card shows."""

    def __init__(self, node):
        self._node = node

    def free(self, uuid):
        return self._node.card.size - self._node.card.used

    def held_by(self, body):
        return FakeCard(self._node.card.path).held(body.pid)


class Stage:
    """An agent's stories about one program."""

    def __init__(self, node, folder):
        self.node, self.folder, self.images = node, folder, CriuImages()
        self.pid, self.ends, self.process = 0, [], None
        self.store = Store(folder / "checkpoints", Keys.own(folder / "keys"), 1 << 30, spare=0)
        bundle = folder / "bundle"
        for made in (folder / "runc" / "c1", bundle):
            made.mkdir(parents=True)
        labels = {"config": {"labels": [f"bundle={bundle}"]}}
        (folder / "runc" / "c1" / "state.json").write_bytes(orjson.dumps(labels))
        (bundle / "config.json").write_bytes(orjson.dumps({"root": {"path": "rootfs"}}))

    def begin(self):
        for name in ("in", "out"):
            os.mkfifo(self.folder / name)
            self.ends.append(os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC))
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("program.py"))],
            env={
                **self.node.environment,
                "LD_PRELOAD": str(self.node.library),
                "KYB_GUEST_SOCKET": str(self.node.folder / "g.sock"),
            },
            stdin=self.ends[0], stdout=self.ends[1], stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/",
        )  # fmt: skip
        self.pid = self.process.pid

    def ask(self, name, *arguments):
        os.write(self.ends[0], json.dumps([name, *arguments]).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self.ends[1], 1)
        word, value = json.loads(line)
        assert word == "ok", value
        return value

    def kill(self):
        if self.pid:  # 0 would be us, and all that run beside us
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def story(self, record, card):
        clock, notes = SystemClock(), Notes(self.node.pool)
        states = DriverStates(self.node.mechanism.worker)
        tools = Tools(
            journal=FileJournal(self.folder / "journal"), pool=self.node.pool,
            mechanism=Deep(self.node.mechanism, states, lambda _: 0, notes),
            cards=Cards(self.node), clock=clock, freezer=Freezer(clock, Cgroups()),
            cellar=Cellar(self.folder / "cellar", 0, b"", clock, free=lambda _: 0),
            depot=Depot(None, NodeName("node"), 0, b"", clock),
        )  # fmt: skip
        body = Body(key=record.key, uid=record.uid, pid=record.pid, gpus=(card,))
        return Story(
            tools=tools, body=body, record=record, watch=Stopwatch(clock), tell=lambda *_: None
        )

    def record(self, name, mark):
        return Record(
            key=WorkloadKey("team", name), uid=PodUid(f"uid-{name}"),
            seat=Seat(GroupName("G0"), 0), container="model", container_id="c1", pid=self.pid,
            pid_started=processes.started(self.pid) or 0,
            exec_fifo=str(self.folder / "runc" / "c1" / "exec.fifo"), boot=processes.boot_id(),
            mark=mark, since=0.0,
            terms=Terms(resource=ResourceName("kyb.ai/gpu-1x-seat"), vram=8 * MIB),
        )  # fmt: skip

    def describe(self, record, body):
        return Facts(
            workload="a", pod="a", pod_uid=record.uid, container="model", node=NodeName("n"),
            sealed_at=1.0, made_in=MADE_IN,
        )  # fmt: skip

    def means(self):
        return seal.Means(store=self.store, images=self.images, describe=self.describe)

    def another_machine(self):
        """Its card is another, and its pool is empty."""
        self.node.mechanism.close()
        shutil.rmtree(self.node.folder / "pool")
        card = self.node.card.path
        card.write_bytes(bytes(card.stat().st_size))
        self.node.card.resize(1 << 30)
        FakeCard(card).be(UUID(OTHER.removeprefix("GPU-")))
        self.node.restart()

    def close(self):
        for one in self.ends:
            os.close(one)
        self.kill()
        FakeCard(self.node.card.path).be(UUID(HERE.removeprefix("GPU-")))


@pytest.fixture
def stage(node):
    with tempfile.TemporaryDirectory(prefix="kyb-s-") as short:
        made = Stage(node, Path(short))
        made.begin()
        yield made
        made.close()


def test_a_workload_is_sealed_and_another_machine_wakes_it_with_all_it_had(stage):
    stage.ask("start")
    at = stage.ask("alloc", 9 * MIB)
    stage.ask("fill", at, 5 * MIB, 1)
    parked = park.park(stage.story(stage.record("a", Mark.ACTIVE), HERE))
    record, sealed = seal.seal(stage.story(parked, HERE), stage.means(), "c-1")
    assert record.mark is Mark.PARKED
    was = sealed.manifest.facts.parts
    assert len(was) == 2  # its memory and its context
    stage.kill()
    stage.another_machine()

    stage.pid = 0
    story = stage.story(stage.record("b", Mark.WAKING), OTHER)
    wake.fill(story, sealed)
    image = stage.folder / "image"
    image.mkdir()
    sealed.take_out(seal.IMAGE, image)
    wake.prepare(story, stage.images, sealed, image, stage.folder / "bundle")
    stage.pid = stage.images.restore(image, stage.folder / "pid")
    made = replace(story.record, pid=stage.pid, pid_started=processes.started(stage.pid) or 0)
    woken = wake.finish(stage.story(made, OTHER), stage.images)
    assert woken.mark is Mark.PARKED
    assert processes.is_stopped(stage.pid)

    active = resume.resume(stage.story(woken, OTHER))
    assert active.mark is Mark.ACTIVE
    assert stage.ask("holds", at, 5 * MIB, 1)
    again = park.park(stage.story(active, OTHER))
    assert resume.resume(stage.story(again, OTHER)).mark is Mark.ACTIVE
    assert stage.ask("holds", at, 5 * MIB, 1)
