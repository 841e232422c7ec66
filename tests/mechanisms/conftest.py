"""
One simulated card of 80 GiB and real processes on it: a plain model server, and the stand-in for
vLLM. One card of the driver in C (testbed/fakecuda), and programs on it with the guest library and
without. Real: the mechanisms, the freezer, the pool, the sockets, the worker. Faked: the cards.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from kybernate.clients.gpus.simulated import SimulatedGpus
from kybernate.clients.simgpu import Driver
from kybernate.model.gpu import Gpu
from kybernate.model.ids import GpuUuid, PodUid, WorkloadKey
from kybernate.model.workload import ParkMechanism
from kybernate.runtime.clock import SystemClock
from kybernate.testing.agentnode import wait_for
from nodeagent.disk.pool import Kept, Pool, Slot
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.mechanisms import Body, Mechanism
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driver import DriverMechanism
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.moving import Notes
from nodeagent.mechanisms.real import Real
from nodeagent.mechanisms.simulated import Simulated
from nodeagent.mechanisms.slabs import Slabs
from nodeagent.sources import by_wish
from testbed import fakecuda
from testbed.assets import native
from testbed.assets.compiler import BuildFailed
from testbed.fakecuda.card import FakeCard
from testbed.gpu.service import running

GIB, MIB = 2**30, 2**20
CARD = GpuUuid("GPU-0")
PATIENCE_S = 60.0
VLLM, MODELS = "testbed.vllm", "testbed.models"
ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Program:
    """A server on the card. `ask` answers (counter, whole)."""

    kind: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def url(self) -> str:
        def port() -> str:
            text = self.log.read_text()
            assert self.process.poll() is None, text
            found = re.search(r"serving on \S+:(\d+)", text)
            return found[1] if found else ""

        return f"http://127.0.0.1:{wait_for(port, 'it serves')}"

    @property
    def body(self) -> Body:
        wish = ParkMechanism.VLLM_SLEEP if self.kind == VLLM else ParkMechanism.AUTO
        uid = PodUid(f"u-{self.process.pid}")
        key = WorkloadKey("team", "model")
        return Body(key=key, uid=uid, pid=self.process.pid, gpus=(CARD,), park=wish)

    def post(self, path: str, **body: Any) -> urllib3.BaseHTTPResponse:
        return urllib3.request("POST", self.url + path, json=body, timeout=60.0, retries=False)

    def ask(self) -> tuple[int, bool]:
        if self.kind == MODELS:
            said = self.post("/predict").json()
            return said["counter"], said["intact"]
        said = self.post("/v1/completions", model="m", prompt="hello", max_tokens=1).json()
        text = said["choices"][0]["text"]
        return int(text.split("request ")[1].split()[0]), "intact" in text


class Node:
    """What an agent parks with."""

    size = 40 * GIB  # of a program, where a test does not say

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "gpu.sock"
        self.pool = Pool(folder / "pool", 400 * GIB)
        self._stack = ExitStack()
        card = Gpu(index=0, uuid=CARD, product="Simulated", memory=80 * GIB, links={})
        self._stack.enter_context(running([card], self.socket, scale=65536, bytes_per_second=1e15))
        self.driver = self._stack.enter_context(Driver(self.socket))
        self.restart()

    def restart(self) -> None:
        """The agent, as after its death."""
        self.freezer = Freezer(SystemClock(), Cgroups())
        usual = Simulated(str(self.socket), self.freezer, Cgroups())
        inventory = SimulatedGpus(str(self.socket))
        self.mechanism: Mechanism = by_wish(usual, inventory, self.freezer, SystemClock())

    @property
    def used(self) -> int:
        return sum(one.used for one in self.driver.showing().processes)

    def start(self, kind: str, *flags: str, vram: str = "40Gi", dev: bool = True) -> Program:
        log = self.folder / f"{time.monotonic_ns()}.log"
        argv = [sys.executable, "-m", kind]
        argv += ["serve"] if kind == MODELS else ["--model=m"]
        environment = {
            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "POD_NAME": "model",
            "KYB_SIMULATED_GPU": str(self.socket), "CUDA_VISIBLE_DEVICES": CARD,
            "VLLM_SERVER_DEV_MODE": str(int(dev)),
        }  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*argv, f"--vram={vram}", "--port=0", *flags],
                env=environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return Program(kind, process, log)

    def body_of(self, process: "subprocess.Popen[bytes]") -> Body:
        """Of any process, as of one that asks for `vllm-sleep`."""
        return Program(VLLM, process, self.folder).body

    # as the stories do

    def park(self, body: Body, *, freeze: bool = True) -> tuple[Slot, tuple[Kept, ...]]:
        self.mechanism.lock(body, PATIENCE_S)
        slot, kept = self.copy_out(body)
        self.release(body)
        if freeze:
            self.freezer.freeze(body.pid, body.container_id)
        return slot, kept

    def copy_out(self, body: Body) -> tuple[Slot, tuple[Kept, ...]]:
        parts = [part for part in self.mechanism.parts(body) if part.backed]
        slot = self.pool.reserve(body.uid, sum(part.size for part in parts))
        kept = tuple(self.mechanism.copy_out(body, p, slot, lambda _: None) for p in parts)
        assert [one.digest for one in kept] == [part.digest for part in parts]
        slot.seal(kept)
        return slot, slot.parts()

    def release(self, body: Body) -> None:
        for part in self.mechanism.parts(body):
            if part.backed:
                self.mechanism.release(body, part, PATIENCE_S)

    def resume(self, body: Body, slot: Slot, kept: tuple[Kept, ...]) -> None:
        self.freezer.thaw(body.pid, body.container_id)
        for one in kept:
            assert self.mechanism.copy_in(body, one, slot, lambda _: None) == one.digest
        self.mechanism.unlock(body, PATIENCE_S)
        self.pool.free(body.uid)

    def close(self) -> None:
        self._stack.close()


class CudaProgram:
    """One of tests/guest/program.py, with some memory. `ask` as `Program`'s."""

    def __init__(self, process: "subprocess.Popen[str]", size: int) -> None:
        self.process, self._counter = process, 0
        key, uid = WorkloadKey("team", "model"), PodUid(f"u-{process.pid}")
        self.body = Body(key=key, uid=uid, pid=process.pid, gpus=(GpuUuid(fakecuda.UUID),))
        self.tell("start")
        self._memory = (self.tell("alloc", size), size, 1)
        self.tell("fill", *self._memory)

    def tell(self, *words: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        said, value = json.loads(self.process.stdout.readline())
        assert said == "ok", value
        return value

    def ask(self) -> tuple[int, bool]:
        self._counter += 1
        return self._counter, self.tell("holds", *self._memory)


class CudaNode(Node):
    """As `Node`, with the mechanism for real GPUs."""

    size = 8 * MIB

    def __init__(self, folder: Path) -> None:
        self.folder, self._stack = folder, ExitStack()
        (folder / "card").touch()
        self.card = FakeCard(folder / "card")
        self._library, driver = native.guest(), fakecuda.build()
        self.environment = {
            "LD_LIBRARY_PATH": str(driver), "KYB_FAKE_CARD": str(folder / "card"),
        }  # fmt: skip
        self._programs: list[CudaProgram] = []
        self.freezer = Freezer(SystemClock(), Cgroups())
        self._guest: GuestMechanism | None = None
        self.restart()

    def restart(self) -> None:
        if self._guest is not None:
            self._guest.close()
        bulk = BulkOfChunks(
            self.folder / "pool", Chunks(Slabs(self.folder / "pool/.chunks", 4 * MIB), 64 * MIB)
        )
        self.pool = Pool(self.folder / "pool", 64 * MIB, bulk)
        guests, cgroups = Guests(self.folder / "g.sock"), Cgroups()
        self._guest = GuestMechanism(
            guests, bulk, self.folder / "workers", self.freezer, cgroups,
            {**os.environ, **self.environment},
        )  # fmt: skip
        states, notes = DriverStates(self._guest.worker), Notes(self.pool)
        held = lambda body: {body.pid: self.card.held(body.pid)}  # noqa: E731
        deep = Deep(self._guest, states, lambda _: 0, notes)
        self.mechanism = Real(deep, DriverMechanism(states, held, self.freezer, self.pool))

    @property
    def used(self) -> int:
        return sum(self.card.held(one.process.pid) for one in self._programs)

    def start(self, kind: str, *flags: str, vram: str = "", dev: bool = True) -> Any:
        preloaded = {
            "LD_PRELOAD": str(self._library), "KYB_GUEST_SOCKET": str(self.folder / "g.sock"),
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/guest/program.py")],
            env={**os.environ, **self.environment, **(preloaded if kind == "guest" else {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        self._programs.append(CudaProgram(process, self.size))
        return self._programs[-1]

    def close(self) -> None:
        super().close()
        if self._guest is not None:
            self._guest.close()


@pytest.fixture(scope="module")
def simulated() -> Iterator[Node]:
    """One for a file's tests."""
    with tempfile.TemporaryDirectory(prefix="kyb-m-") as folder:
        made = Node(Path(folder))
        yield made
        made.close()


@pytest.fixture(scope="module")
def node(simulated: Node) -> Node:
    return simulated


@pytest.fixture(scope="module")
def cuda() -> Iterator[CudaNode]:
    """Likewise."""
    try:
        native.guest(), fakecuda.build()
    except BuildFailed as problem:
        if native.why_not():
            pytest.skip(native.why_not() or "")
        raise problem
    with tempfile.TemporaryDirectory(prefix="kyb-c-", ignore_cleanup_errors=True) as folder:
        made = CudaNode(Path(folder))
        yield made
        made.close()


@pytest.fixture
def later() -> Callable[[Callable[[], Any]], "Later"]:
    """Runs something beside the test."""
    return Later


class Later(threading.Thread):
    """`answer` waits for what it returned."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call, self._said = call, []
        self.start()

    def run(self) -> None:
        self._said.append(self._call())

    @property
    def ended(self) -> bool:
        return bool(self._said)

    def answer(self) -> Any:
        self.join(PATIENCE_S)
        assert self._said, "no answer"
        return self._said[0]
