"""
A parked program goes through CRIU and wakes: on its card, on another, on another machine's.

Real: the guest library, the worker, the mechanisms, CRIU with our plugin. Faked: the driver, whose
process keeps a device open while it is tied to its card. Observed: contents, where they are.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import pytest

from kybernate.model.ids import GpuUuid, PodUid, WorkloadKey
from kybernate.runtime.clock import SystemClock
from nodeagent.images import Unfitness, fitness
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.mechanisms import Body, NotPossible, moving
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driver import DriverMechanism
from nodeagent.mechanisms.driverstates import DriverStates
from testbed import fakecuda
from testbed.assets import native
from testbed.fakecuda.card import FakeCard
from testbed.node import programs

MIB = 2**20
PATIENCE_S = 60.0
HERE = GpuUuid(fakecuda.UUID)
OTHER = GpuUuid("GPU-0123cdef-0000-1111-2222-333333333333")
_DEVICE = "/dev/kmsg"  # one that no image can have

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("real_programs")]


@dataclass
class Living:
    """A program that is spoken with through FIFOs, so that it can go and come back."""

    node: object
    folder: Path
    pid: int = 0
    ends: list[int] = field(default_factory=list)
    started: subprocess.Popen | None = None

    def begin(self, *, guest):
        for name in ("in", "out"):
            os.mkfifo(self.folder / name)
            self.ends.append(os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC))
        preloaded = {
            "LD_PRELOAD": str(self.node.library),
            "KYB_GUEST_SOCKET": str(self.node.folder / "g.sock"),
        }
        self.started = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("program.py"))],
            env={
                **self.node.environment,
                **(preloaded if guest else {}),
                "KYB_FAKE_DEVICE": _DEVICE,
            },
            stdin=self.ends[0], stdout=self.ends[1], stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/",
        )  # fmt: skip
        self.pid = self.started.pid

    def ask(self, name, *arguments):
        os.write(self.ends[0], json.dumps([name, *arguments]).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self.ends[1], 1)
        word, value = json.loads(line)
        assert word == "ok", value
        return value

    def dump(self, into):
        """Into an image; nothing of it is left."""
        into.mkdir()
        criu("dump", "--tree", str(self.pid), "--images-dir", str(into), "--ext-unix-sk")
        self.started.wait()

    def wake(self, image):
        """From an image, stopped as the runtime leaves it."""
        into = self.folder / "pid"
        into.unlink(missing_ok=True)
        criu(
            "restore", "--images-dir", str(image), "--restore-detached", "--leave-stopped",
            "--pidfile", str(into),
        )  # fmt: skip
        self.pid = int(into.read_text())

    def end(self):
        for one in self.ends:
            os.close(one)
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if self.started is not None:
            self.started.wait()


def criu(verb, *arguments):
    folder = Path(arguments[arguments.index("--images-dir") + 1])
    done = subprocess.run(
        [
            programs.find().criu, verb, *arguments, "--log-file", f"{verb}.log", "-v4",
            "--libdir", native.criu_plugins(), "--network-lock", "skip",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    log = folder / f"{verb}.log"
    assert not done.returncode, (done.stderr, log.read_text()[-3000:] if log.exists() else "")


@pytest.fixture
def living(node):
    """Makes one, with some memory."""
    with tempfile.TemporaryDirectory(prefix="kyb-i-") as short:
        one = Living(node, Path(short))

        def begin(*, guest):
            one.begin(guest=guest)
            one.ask("start")
            one.at = one.ask("alloc", 5 * MIB)
            one.ask("fill", one.at, 5 * MIB, 1)
            return one

        yield begin
        one.end()
    FakeCard(node.card.path).be(UUID(HERE.removeprefix("GPU-")))


class Kind:
    """How a kind of program is parked and woken here."""

    def __init__(self, node, guest):
        self.node, self.guest, self.card = node, guest, FakeCard(node.card.path)

    @property
    def mechanism(self):
        states, notes = DriverStates(self.node.mechanism.worker), moving.Notes(self.node.pool)
        if self.guest:
            held = lambda body: self.card.held(body.pid)  # noqa: E731
            return Deep(self.node.mechanism, states, held, notes)
        by_process = lambda body: {body.pid: self.card.held(body.pid)}  # noqa: E731
        freezer = Freezer(SystemClock(), Cgroups())
        return DriverMechanism(states, by_process, freezer, self.node.pool)

    def body(self, one, card=HERE):
        key, uid = WorkloadKey("team", "model"), PodUid("image-1")
        return Body(key=key, uid=uid, pid=one.pid, gpus=(card,))

    def park(self, body):
        self.mechanism.lock(body, PATIENCE_S)
        parts = self.mechanism.parts(body)
        slot = self.node.pool.reserve(body.uid, sum(part.size for part in parts))
        kept = tuple(self.mechanism.copy_out(body, p, slot, lambda _: None) for p in parts)
        slot.seal(kept)
        for part in parts:
            self.mechanism.release(body, part, PATIENCE_S)
        return kept

    def resume(self, body, kept):
        processes.thaw(body.pid)
        slot = self.node.pool.slot(body.uid)
        for one in kept:
            assert self.mechanism.copy_in(body, one, slot, lambda _: None) == one.digest
        self.mechanism.unlock(body, PATIENCE_S)
        self.node.pool.free(body.uid)


@pytest.fixture(params=[True, False], ids=["guest", "driver"])
def kind(request, node):
    return Kind(node, request.param)


def test_a_parked_program_wakes_from_its_image_on_its_card(kind, living, tmp_path):
    one = living(guest=kind.guest)
    body = kind.body(one)
    assert Unfitness.DEVICE in {found.reason for found in fitness.of_tree(one.pid)}
    kept = kind.park(body)
    known = kind.mechanism.let_go(body, PATIENCE_S)
    assert {found.reason for found in fitness.of_tree(one.pid)} == set()
    one.dump(tmp_path / "image")
    assert kind.card.held(one.pid) == 0
    one.wake(tmp_path / "image")
    kind.mechanism.adopt(body, known)
    kind.mechanism.adopt(body, known)
    kind.resume(kind.body(one), kept)
    assert one.ask("holds", one.at, 5 * MIB, 1)
    kind.resume(body, kind.park(body))
    assert one.ask("holds", one.at, 5 * MIB, 1)


def test_it_wakes_on_another_card_of_another_machine_and_parks_there(kind, living, node, tmp_path):
    one = living(guest=kind.guest)
    kept = kind.park(kind.body(one))
    known = kind.mechanism.let_go(kind.body(one), PATIENCE_S)
    one.dump(tmp_path / "image")
    _another_machine(node)
    one.wake(tmp_path / "image")
    body = kind.body(one, OTHER)
    kind.mechanism.adopt(body, known)
    node.restart()  # the agent dies before it resumes: it is written down which cards they are
    kept = tuple(replace(part, uuid=OTHER) for part in kept)
    kind.resume(body, kept)
    assert one.ask("holds", one.at, 5 * MIB, 1)
    assert {part.uuid for part in kind.mechanism.parts(body)} == {OTHER}
    for _ in range(2):
        kind.resume(body, kind.park(body))
    assert one.ask("holds", one.at, 5 * MIB, 1)


def test_it_goes_on_in_place_after_an_image_was_made(kind, living):
    one = living(guest=kind.guest)
    body = kind.body(one)
    kept = kind.park(body)
    kind.mechanism.let_go(body, PATIENCE_S)
    kind.resume(body, kept)
    assert one.ask("holds", one.at, 5 * MIB, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "cannot be read"),
        ('{"version":1,"mechanism":"simulated","cards":[],"guests":{}}', "simulated"),
        ('{"version":9,"mechanism":"guest","cards":["00"],"guests":{}}', "9"),
        ('{"version":1,"mechanism":"guest","cards":["00","11"],"guests":{}}', "2 GPUs"),
        ('{"version":1,"mechanism":"guest","cards":["00"],"guests":{"ab":{"00":7}}}', "read"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_words(text, why):
    with pytest.raises(NotPossible, match=why):
        moving.read(text, "guest", (HERE,))


def _another_machine(node):
    """Its card is another, and nobody has been on it."""
    node.mechanism.close()
    size = node.card.path.stat().st_size
    node.card.path.write_bytes(bytes(size))
    node.card.resize(1 << 30)
    FakeCard(node.card.path).be(UUID(OTHER.removeprefix("GPU-")))
    node.restart()
