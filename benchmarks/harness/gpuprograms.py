"""
Workloads on a real GPU and what parks them, without an agent around: `parking` measures with these.

A program reports into a file, checks itself, and knows nothing of being parked.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml

from kybernate.model.ids import GpuUuid, PodUid, WorkloadKey
from kybernate.runtime.clock import SystemClock
from nodeagent.disk.pool import Kept, Pool, Slot
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.mechanisms import Body, Mechanism, Part
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driver import DriverMechanism
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.moving import Notes
from nodeagent.mechanisms.slabs import Slabs
from testbed.assets import native

PROGRAMS = Path(__file__).parents[1] / "gpuworkloads"
_PATIENCE_S = 120.0
_DRAIN_S = 20.0


@dataclass(slots=True)
class Node:
    """What an agent has: the door for guests, a pool, the mechanism."""

    folder: Path
    limit: int
    cards: tuple[GpuUuid, ...] = ()
    mechanism: GuestMechanism = field(init=False)
    deep: Deep = field(init=False)
    driver: DriverMechanism = field(init=False)
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """An agent, as after a start: it knows what is on the disk, and takes workers up."""
        folder = self.folder / "pool"
        bulk = BulkOfChunks(folder, Chunks(Slabs(folder / ".chunks"), self.limit))
        self.pool = Pool(folder, self.limit, bulk)
        cgroups = Cgroups()
        freezer = Freezer(SystemClock(), cgroups)
        self.mechanism = GuestMechanism(
            Guests(self.folder / "guest.sock"),
            bulk,
            self.folder / "workers",
            freezer,
            cgroups,
        )
        states = DriverStates(self.mechanism.worker)
        self.deep = Deep(self.mechanism, states, lambda _: vram_used(), Notes(self.pool))
        self.driver = DriverMechanism(
            states, lambda body: {body.pid: vram_used()}, freezer, self.pool
        )

    def restart(self) -> None:
        """As an agent's death and the next one."""
        self.mechanism.close()
        self.begin()

    def end(self) -> None:
        """The workers, too."""
        self.mechanism.dismiss()
        self.mechanism.close()


@dataclass(slots=True)
class Program:
    """One workload, and what it reports."""

    process: subprocess.Popen[bytes]
    report: Path
    cards: tuple[GpuUuid, ...] = ()
    name: str = "bench"

    @property
    def body(self) -> Body:
        """As a mechanism knows it."""
        key, uid = WorkloadKey("bench", self.name), PodUid(self.name)
        return Body(key=key, uid=uid, pid=self.process.pid, gpus=self.cards)

    def facts(self) -> dict[str, Any]:
        """Its last report; empty before the first."""
        try:
            found: dict[str, Any] = json.loads(self.report.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def wait(self, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Until its report says so. Raises RuntimeError when it ends or takes too long."""
        end = time.monotonic() + _PATIENCE_S
        while not (facts := self.facts()) or not until(facts):
            if self.process.poll() not in (None, 0) or time.monotonic() > end:
                raise RuntimeError(f"{self.process.args!r}: {self.process.poll()}, {facts}")
            time.sleep(0.002)
        return facts

    def goes_on(self) -> dict[str, Any]:
        """Until it has made some more steps."""
        before = self.facts().get("steps", 0)
        return self.wait(lambda facts: facts.get("ended") or facts["steps"] > before + 2)

    def ask(self, what: str) -> None:
        """Leave the file it looks for."""
        self.report.with_suffix(f".{what}").touch()


@contextmanager
def program(
    node: Node,
    *arguments: str,
    guest: bool = True,
    more: Mapping[str, str] | None = None,
    name: str = "bench",
) -> Iterator[Program]:
    """Start one of gpuworkloads with `more` in its environment; killed at the end."""
    report = node.folder / f"{name}.json"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **(more or {})}
    if guest:
        environment["LD_PRELOAD"] = str(native.guest())
        environment["KYB_GUEST_SOCKET"] = str(node.folder / "guest.sock")
    script, *rest = arguments
    start = [sys.executable, str(PROGRAMS / script)] if script.endswith(".py") else [script]
    process = subprocess.Popen(
        [*start, str(report), *rest],
        env=environment,
        stdin=subprocess.DEVNULL,  # and a file and a session of its own: an image can have them
        stdout=subprocess.DEVNULL,
        stderr=(node.folder / "errors.txt").open("w"),
        start_new_session=True,
    )
    try:
        yield Program(process, report, node.cards, name)
    finally:
        process.kill()
        process.wait()


@dataclass(slots=True)
class Switch:
    """Seconds of one park and one resume, by phase; bytes, and how many of them the park copied, in
    which seconds; VRAM used before and while parked; bytes of zeros that an image lost."""

    seconds: dict[str, float] = field(default_factory=dict)
    size: int = 0
    copied: int = 0
    copying: float = 0.0
    used: tuple[int, ...] = ()
    zeros: int = 0

    def timed(self, phase: str, work: Callable[[], Any]) -> Any:
        """Do it and note how long it took."""
        began = time.monotonic()
        result = work()
        self.seconds[phase] = time.monotonic() - began
        return result

    @property
    def park(self) -> float:
        """From the gate closed and all work ended (drain is apart) to the memory given back."""
        return self.seconds["list"] + self.seconds["copy out"] + self.seconds["release"]

    @property
    def resume(self) -> float:
        """From the first question to the gate open."""
        return self.seconds["list again"] + self.seconds["copy in"] + self.seconds["open"]


def switch(
    node: Node, one: Program, hold: float = 0.2, by: Mechanism | None = None, *, keep: bool = False
) -> Switch:
    """Park, look that it stands still for `hold` seconds, resume, and see it go on. By the guest,
    shallow, if not by another. `keep`: the pool's copy, as an agent does."""
    done, mechanism = Switch(), by or node.mechanism
    before = vram_used() if hold else 0
    kept = park(node, one, done, mechanism)
    done.used = (before, vram_used() if hold else 0)
    held = one.facts()["steps"]
    time.sleep(hold)
    if one.facts()["steps"] != held:
        raise RuntimeError("it went on while it was parked")
    resume(node, one, done, mechanism, kept)
    (node.pool.retire if keep else node.pool.free)(one.body.uid)
    one.goes_on()
    return done


def park(node: Node, one: Program, done: Switch, mechanism: Mechanism) -> list[Kept]:
    """Its first half. What is in the slot."""
    body = one.body
    done.timed("close and drain", lambda: mechanism.lock(body, _DRAIN_S))
    parts: tuple[Part, ...] = done.timed("list", lambda: mechanism.parts(body))
    done.size = sum(part.size for part in parts)
    slot: Slot = node.pool.reserve(body.uid, done.size)
    kept: list[Kept] = done.timed(
        "copy out", lambda: [mechanism.copy_out(body, p, slot, lambda _: None) for p in parts]
    )
    slot.seal(tuple(kept))
    tallies = list(node.mechanism.tallies)[-len(parts) :]
    done.copied = sum(tally.copied for tally in tallies)
    done.copying = max((tally.seconds for tally in tallies), default=0.0)
    done.timed("release", lambda: release(mechanism, body, parts))
    return kept


def resume(node: Node, one: Program, done: Switch, mechanism: Mechanism, kept: list[Kept]) -> None:
    """Its second half."""
    body, slot = one.body, node.pool.slot(one.body.uid)
    done.timed("list again", lambda: mechanism.parts(body))
    done.timed("copy in", lambda: [mechanism.copy_in(body, k, slot, lambda _: None) for k in kept])
    done.timed("open", lambda: mechanism.unlock(body, _DRAIN_S))


def release(mechanism: Mechanism, body: Body, parts: tuple[Part, ...]) -> None:
    """All of a workload's VRAM."""
    for part in parts:
        mechanism.release(body, part, _DRAIN_S)


def vram_used() -> int:
    """Bytes of the first card, as the driver shows them."""
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    return int(pynvml.nvmlDeviceGetMemoryInfo(card, version=pynvml.nvmlMemory_v2).used)
