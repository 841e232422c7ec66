"""
One simulated card of 80 GiB and real processes on it: a plain model server, and the stand-in for
vLLM. Real: the mechanisms, the freezer, the pool, the sockets. Faked: the card.
"""

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
from nodeagent.cgroups import Cgroups
from nodeagent.freezer import Freezer
from nodeagent.mechanisms import Body, Mechanism
from nodeagent.mechanisms.simulated import Simulated
from nodeagent.pool import Kept, Pool, Slot
from nodeagent.sources import by_wish
from testbed.gpu.service import running

GIB = 2**30
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


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """One for a file's tests."""
    with tempfile.TemporaryDirectory(prefix="kyb-m-") as folder:
        made = Node(Path(folder))
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
