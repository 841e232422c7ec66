"""Programs without the guest library: the driver takes their memory into their own, and back."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kybernate.model.ids import GpuUuid
from kybernate.runtime.clock import SystemClock
from nodeagent.gpuworker.checkpoints import State
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.mechanisms import BodyGone, NotPossible, NotYet, moving
from nodeagent.mechanisms import driver as driver_module
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driver import DriverMechanism
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.memoryroom import room
from nodeagent.mechanisms.real import Real
from testbed import fakecuda
from testbed.fakecuda.card import FakeCard, Step

MIB = 2**20
PATIENCE_S = 60.0
CARD = GpuUuid(fakecuda.UUID)


@pytest.fixture
def plain(node):
    """A program that has no guest, with memory of both kinds."""
    with node.program(guest=False) as told:
        told.at, told.mapped = told.alloc(3 * MIB), told.map_(told.create(4 * MIB), 4 * MIB)
        told.fill(told.at, 3 * MIB, 1)
        told.fill(told.mapped, 4 * MIB, 2)
        yield told


@pytest.fixture
def body(plain):
    return replace(plain.body, gpus=(CARD,))


@pytest.fixture
def parked_by(node):
    """The mechanism, its card, and how it parks and resumes."""
    card = FakeCard(node.card.path)
    states = DriverStates(node.mechanism.worker)
    held = lambda body: {body.pid: card.held(body.pid)}  # noqa: E731
    mechanism = DriverMechanism(states, held, Freezer(SystemClock(), Cgroups()), node.pool)

    def park(body):
        mechanism.lock(body, PATIENCE_S)
        parts = mechanism.parts(body)
        slot = node.pool.reserve("slot", sum(part.size for part in parts))
        kept = tuple(mechanism.copy_out(body, part, slot, lambda _: None) for part in parts)
        assert [one.digest for one in kept] == [part.digest for part in parts]
        slot.seal(kept)
        for part in parts:
            mechanism.release(body, part, PATIENCE_S)
        return slot, kept

    def resume(body, slot, kept):
        for one in kept:
            assert mechanism.copy_in(body, one, slot, lambda _: None) == one.digest
        mechanism.unlock(body, PATIENCE_S)

    yield SimpleNamespace(mechanism=mechanism, card=card, states=states, park=park, resume=resume)
    card.fail_next(None)
    node.pool.free("slot")


def whole(plain):
    return plain.holds(plain.at, 3 * MIB, 1) and plain.holds(plain.mapped, 4 * MIB, 2)


def test_contents_come_back_as_they_were_and_the_card_is_empty_meanwhile(plain, body, parked_by):
    for _ in range(2):
        slot, kept = parked_by.park(body)
        assert sum(one.size for one in kept) >= 7 * MIB
        assert parked_by.card.held(body.pid) == 0
        assert not any(part.backed for part in parked_by.mechanism.parts(body))
        waiting = plain.later("holds", plain.at, 3 * MIB, 1)
        parked_by.resume(body, slot, kept)
        assert waiting.answer() is True
    assert whole(plain)


def test_every_step_may_be_asked_for_again(plain, body, parked_by):
    slot, kept = parked_by.park(body)
    (part,) = parked_by.mechanism.parts(body)
    parked_by.mechanism.release(body, part, PATIENCE_S)
    with pytest.raises(NotPossible, match="not whole"):
        parked_by.mechanism.unlock(body, PATIENCE_S)
    for _ in range(2):
        parked_by.mechanism.copy_in(body, kept[0], slot, lambda _: None)
    for _ in range(2):
        parked_by.mechanism.unlock(body, PATIENCE_S)
    assert whole(plain)


def test_work_that_does_not_end_leaves_it_running(node, plain, body, parked_by):
    node.card.endless(True)
    try:
        with pytest.raises(NotYet, match="does not end"):
            parked_by.mechanism.lock(body, 0.3)
    finally:
        node.card.endless(False)
    assert parked_by.card.on(body.pid).state == State.RUNNING
    assert whole(plain)


def test_a_checkpoint_that_fails_leaves_it_locked_and_whole(plain, body, parked_by):
    parked_by.card.fail_next(Step.CHECKPOINT)
    with pytest.raises(NotPossible, match="999"):
        parked_by.park(body)
    assert parked_by.card.on(body.pid).state == State.LOCKED
    parked_by.mechanism.unlock(body, PATIENCE_S)
    assert whole(plain)


def test_a_restore_that_fails_is_the_end_and_said_to_be(plain, body, parked_by):
    slot, kept = parked_by.park(body)
    parked_by.card.fail_next(Step.RESTORE)
    with pytest.raises(BodyGone):
        parked_by.mechanism.copy_in(body, kept[0], slot, lambda _: None)


def test_a_container_without_room_for_its_vram_is_refused_before_it_begins(
    plain, body, parked_by, monkeypatch
):
    monkeypatch.setattr(driver_module, "room", lambda pid: 6 * MIB)
    with pytest.raises(NotPossible, match="whose limit leaves 6 MiB"):
        parked_by.mechanism.lock(body, PATIENCE_S)
    assert parked_by.card.on(body.pid).state == State.RUNNING


def test_a_workload_of_several_gpu_processes_is_refused(plain, body, parked_by, node):
    child = subprocess.Popen(
        [sys.executable, "-c", _TWO],
        env=dict(node.environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        child.stdout.readline()
        with pytest.raises(NotPossible, match="may share memory"):
            parked_by.mechanism.lock(replace(body, pid=child.pid), PATIENCE_S)
    finally:
        child.kill()  # its own child goes with it
        child.stdin.close()
        child.stdout.close()
        child.wait()


_TWO = """
import ctypes, os, signal
def start():
    cuda = ctypes.CDLL("libcuda.so.1")
    assert cuda.cuInit(0) == 0
reading, writing = os.pipe()
if os.fork() == 0:
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)
    start()
    os.write(writing, b".")
    signal.pause()
os.read(reading, 1)
start()
print("ready", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("steps", [(), ("checkpoint",), ("checkpoint", "restore")])
@pytest.mark.crash
def test_an_agent_that_dies_in_between_leaves_it_where_the_next_one_goes_on(
    node, plain, body, parked_by, steps
):
    slot, kept = parked_by.park(body)
    parked_by.resume(body, slot, kept)
    for step in ("lock", *steps):
        getattr(parked_by.states, step)(CARD, body.pid, 5.0)
    node.restart()
    again = DriverStates(node.mechanism.worker)
    parked_by.mechanism._states = again
    for part in parked_by.mechanism.parts(body):
        if part.backed:
            parked_by.mechanism.release(body, part, PATIENCE_S)
    assert parked_by.card.held(body.pid) == 0
    parked_by.resume(body, slot, kept)
    assert whole(plain)


def test_the_library_decides_who_parks_and_a_mix_is_refused(node, plain, body, parked_by):
    guest = Deep(node.mechanism, parked_by.states, lambda _: 0, moving.Notes(node.pool))
    real = Real(guest, parked_by.mechanism)
    assert real.of(body) is parked_by.mechanism
    with node.program() as other:
        assert real.of(replace(other.body, gpus=(CARD,))) is guest
    environment = {**node.environment, "KYB_LIBRARY": str(node.library)}
    both = subprocess.Popen(
        [sys.executable, "-c", _MIX], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        both.stdout.readline()
        with pytest.raises(NotPossible, match="without the guest library, others have it"):
            real.lock(replace(body, pid=both.pid), PATIENCE_S)
    finally:
        both.kill()
        both.stdin.close()
        both.stdout.close()
        both.wait()


_MIX = """
import ctypes, os, signal
reading, writing = os.pipe()
if os.fork() == 0:
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)
    ctypes.CDLL(os.environ["KYB_LIBRARY"])
    ctypes.CDLL("libcuda.so.1")
    os.write(writing, b".")
    signal.pause()
os.read(reading, 1)
ctypes.CDLL("libcuda.so.1")
print("ready", flush=True)
signal.pause()
"""


def test_room_is_what_the_nearest_of_all_limits_leaves(tmp_path):
    proc, cgroup = tmp_path / "proc", tmp_path / "cg"
    inner = cgroup / "pod" / "container"
    inner.mkdir(parents=True)
    (proc / "7").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "7" / "cgroup").write_text("0::/pod/container\n")
    (proc / "self" / "mountinfo").write_text(
        f"30 23 0:26 / {cgroup} rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    for folder, limit, used in ((inner, "max", 300), (cgroup / "pod", "1000", 400)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 50\n")
    assert room(7, proc) == 650
    (inner / "memory.max").write_text("500\n")
    assert room(7, proc) == 250
    (cgroup / "pod" / "memory.max").write_text("max\n")
    (inner / "memory.max").write_text("max\n")
    assert room(7, proc) is None
