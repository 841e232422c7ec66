"""
`python -m benchmarks.parking`: real workloads on a real GPU parked and resumed. Needs a GPU.

Unmodified programs (benchmarks/gpuworkloads) run with the guest library preloaded, under load all
the time; they check their own contents. The limit is a pinned copy by the same worker in the same
run. Prints a table, and as last line one of JSON.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid, PodUid, WorkloadKey
from kybernate.runtime.clock import SystemClock
from nodeagent.cgroups import Cgroups
from nodeagent.freezer import Freezer
from nodeagent.mechanisms import Body, Part
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.slabs import Slabs
from nodeagent.pool import Kept, Pool, Slot
from testbed.assets import native

GIB = 2**30
_PROGRAMS = Path(__file__).parent / "gpuworkloads"
_PATIENCE_S = 120.0
_DRAIN_S = 20.0


@dataclass(slots=True)
class Node:
    """What an agent has: the door for guests, a pool, the mechanism."""

    folder: Path
    limit: int
    mechanism: GuestMechanism = field(init=False)
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = Pool(self.folder / "pool", self.limit)
        cgroups = Cgroups()
        self.mechanism = GuestMechanism(
            Guests(self.folder / "guest.sock"),
            Slabs(self.pool.folder / ".slabs"),
            Freezer(SystemClock(), cgroups),
            cgroups,
        )


@dataclass(slots=True)
class Program:
    """One workload, and what it reports."""

    process: subprocess.Popen[bytes]
    report: Path

    @property
    def body(self) -> Body:
        """As a mechanism knows it."""
        return Body(
            key=WorkloadKey("bench", "program"), uid=PodUid("bench"), pid=self.process.pid, gpus=()
        )

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
    node: Node, *arguments: str, guest: bool = True, more: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Start one of gpuworkloads with `more` in its environment; killed at the end."""
    report = node.folder / "report.json"
    report.unlink(missing_ok=True)
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **(more or {})}
    if guest:
        environment["LD_PRELOAD"] = str(native.guest())
        environment["KYB_GUEST_SOCKET"] = str(node.folder / "guest.sock")
    script, *rest = arguments
    start = [sys.executable, str(_PROGRAMS / script)] if script.endswith(".py") else [script]
    process = subprocess.Popen([*start, str(report), *rest], env=environment)
    try:
        yield Program(process, report)
    finally:
        process.kill()
        process.wait()


@dataclass(slots=True)
class Switch:
    """Seconds of one park and one resume, by phase; bytes; VRAM used before and while parked."""

    seconds: dict[str, float] = field(default_factory=dict)
    size: int = 0
    used: tuple[int, ...] = ()

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


def switch(node: Node, one: Program, hold: float = 0.2) -> Switch:
    """Park, look that it stands still for `hold` seconds, resume, and see it go on."""
    done, mechanism, body = Switch(), node.mechanism, one.body
    before = vram_used() if hold else 0
    done.timed("close and drain", lambda: mechanism.lock(body, _DRAIN_S))
    parts: tuple[Part, ...] = done.timed("list", lambda: mechanism.parts(body))
    done.size = sum(part.size for part in parts)
    slot: Slot = node.pool.reserve("bench", done.size)
    kept: list[Kept] = done.timed(
        "copy out", lambda: [mechanism.copy_out(body, p, slot, lambda _: None) for p in parts]
    )
    slot.seal(tuple(kept))
    done.timed("release", lambda: release(node, body, parts))
    done.used = (before, vram_used() if hold else 0)
    held = one.facts()["steps"]
    time.sleep(hold)
    if one.facts()["steps"] != held:
        raise RuntimeError("it went on while it was parked")
    done.timed("list again", lambda: mechanism.parts(body))
    done.timed("copy in", lambda: [mechanism.copy_in(body, k, slot, lambda _: None) for k in kept])
    done.timed("open", lambda: mechanism.unlock(body, _DRAIN_S))
    node.pool.free("bench")
    one.goes_on()
    return done


def release(node: Node, body: Body, parts: tuple[Part, ...]) -> None:
    """All of a workload's VRAM."""
    for part in parts:
        node.mechanism.release(body, part, _DRAIN_S)


def vram_used() -> int:
    """Bytes, as the driver shows them."""
    shown = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(shown.stdout) * 2**20


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def summary(name: str, switches: list[Switch], limit: dict[str, float]) -> dict[str, Any]:
    """Medians of some switches, printed as a row and returned."""
    size = switches[0].size
    found: dict[str, Any] = {
        "gib": size / GIB,
        "switches": len(switches),
        "park": median([one.park for one in switches]),
        "resume": median([one.resume for one in switches]),
        "phases": {
            phase: median([one.seconds[phase] for one in switches]) for phase in switches[0].seconds
        },
        "vram_used": switches[0].used,
    }
    for way in ("park", "resume"):
        found[f"{way}_of_limit"] = size / limit[way] / found[way]
    found["park_worst"] = max(one.park for one in switches)
    found["resume_worst"] = max(one.resume for one in switches)
    print(
        f"{name:28} {found['gib']:6.1f} GiB  park {found['park']:.3f} s"
        f" ({found['park_of_limit']:.2f} of the limit)  resume {found['resume']:.3f} s"
        f" ({found['resume_of_limit']:.2f})  "
        + " ".join(f"{phase} {s * 1e3:.0f}" for phase, s in found["phases"].items())
        + " ms",
        flush=True,
    )
    return found


def filled(node: Node, gib: int, times: int, limit: dict[str, float]) -> dict[str, Any]:
    """A program of the driver API, in segments of 20 MiB as PyTorch's allocator has them."""
    with program(node, "driver.py", str(gib)) as one:
        one.wait(bool)
        switches = [switch(node, one) for _ in range(times)]
        one.ask("verify")
        facts = one.wait(lambda facts: facts["verified"] == 1)
        found = summary(f"driver API, {gib} GiB", switches, limit)
        return {**found, "wrong": facts["wrong"], "left": node.mechanism.left(one.body)}


def served(node: Node, layers: int, times: int, limit: dict[str, float]) -> dict[str, Any]:
    """The language model with a CUDA graph, answers compared."""
    with program(node, "model.py", str(layers)) as one:
        one.wait(bool)
        switches = [switch(node, one) for _ in range(times)]
        facts = one.goes_on()
        found = summary("PyTorch model, CUDA graph", switches, limit)
        told = {name: facts[name] for name in ("wrong", "steps", "longest")}
        return {**found, **told, "left": node.mechanism.left(one.body)}


def trained(node: Node, steps: int, limit: dict[str, float]) -> dict[str, Any]:
    """A training run parked on its way, against one that was not and had no guest."""
    with program(node, "training.py", str(steps), guest=False) as one:
        alone = one.wait(lambda facts: bool(facts.get("ended")))
    with program(node, "training.py", str(steps)) as one:
        one.wait(lambda facts: facts["steps"] > 5)
        switches = [switch(node, one) for _ in range(3)]
        parked = one.wait(lambda facts: bool(facts.get("ended")))
    found = summary("PyTorch training, AdamW", switches, limit)
    return {**found, "same_bits": parked["checksum"] == alone["checksum"]}


# Programs that allocate in other ways; what each needs beside its arguments.
OTHERS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "PyTorch, expandable segments": (
        ("model.py", "8"),
        {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
    ),
    "PyTorch, cudaMallocAsync": (
        ("model.py", "8"),
        {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
    ),
    "CuPy": (("arrays.py", "2"), {}),
    "JAX": (("jitted.py", "2"), {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.05"}),
    "CUDA C++, static runtime": (("static", "2"), {}),
}


def other(node: Node, name: str, limit: dict[str, float]) -> dict[str, Any]:
    """One of OTHERS; its error in words where it does not run here."""
    (script, *rest), environment = OTHERS[name]
    try:
        script = built(node.folder) if script == "static" else script
        with program(node, script, *rest, more=environment) as one:
            one.wait(bool)
            switches = [switch(node, one) for _ in range(3)]
            facts = one.goes_on()
            found = summary(name, switches, limit)
            return {**found, "wrong": facts["wrong"], "left": node.mechanism.left(one.body)}
    except (RuntimeError, Refused, Retry, OSError, subprocess.CalledProcessError) as error:
        print(f"{name:28} did not run: {error}", flush=True)
        return {"failed": str(error)}


def built(folder: Path) -> str:
    """static.cu as a program."""
    made = folder / "static"
    subprocess.run(["nvcc", "-O2", "-o", str(made), str(_PROGRAMS / "static.cu")], check=True)
    return str(made)


def overhead(node: Node, pairs: int) -> dict[str, Any]:
    """Steps with and without the guest, in turns; nothing is parked."""
    programs = {"token step": ("model.py", "8", "600"), "training step": ("training.py", "300")}
    return {name: compared(node, name, words, pairs) for name, words in programs.items()}


def compared(node: Node, name: str, words: tuple[str, ...], pairs: int) -> dict[str, Any]:
    """One program's median step in milliseconds, run by run, and the ratio of the medians."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    for pair in range(pairs):
        for which in sorted(found, reverse=pair % 2 == 0):
            with program(node, *words, guest=which == "with") as one:
                facts = one.wait(lambda facts: bool(facts.get("ended")))
                found[which].append(facts["median_ms"])
    ratio = median(found["with"]) / median(found["without"])
    runs = {which: " ".join(f"{value:.3f}" for value in found[which]) for which in found}
    print(f"{name}, ms: without {runs['without']}; with {runs['with']}; ratio {ratio:.4f}")
    return {**found, "ratio": ratio}


def repeated(node: Node, times: int, limit: dict[str, float]) -> dict[str, Any]:
    """Many switches of a program whose threads allocate all the time: what is left behind."""
    with program(node, "churn.py", "1.5") as one:
        one.wait(lambda facts: facts["steps"] > 20)
        switches = [switch(node, one) for _ in range(3)]
        before = footprint(node, one)
        switches += [switch(node, one, hold=0.0) for _ in range(times)]
        facts, after = one.goes_on(), footprint(node, one)
        found = summary(f"PyTorch threads, {times} times", switches, limit)
        print(f"  before {before}, after {after}, wrong {facts['wrong']}")
        return {**found, "wrong": facts["wrong"], "before": before, "after": after}


def footprint(node: Node, one: Program) -> dict[str, int]:
    """Descriptors and MiB of the agent, its workers and the program."""
    pids = {"agent": os.getpid(), "program": one.process.pid, **node.mechanism.workers()}
    found = {}
    for name, pid in pids.items():
        found[f"{name} descriptors"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        found[f"{name} MiB"] = pages * os.sysconf("SC_PAGESIZE") // 2**20
    return found


def pinned_limit(node: Node, uuid: GpuUuid) -> dict[str, float]:
    """Bytes a second of plain pinned copies, each way, by the worker that parks."""
    rates = node.mechanism.rates(uuid, node.limit - 2 * GIB)
    print(f"pinned copies: {rates['park'] / 1e9:.1f} GB/s out, {rates['resume'] / 1e9:.1f} in")
    return rates


def card() -> tuple[GpuUuid, str]:
    """The first GPU: its UUID; name and driver in words. Exits where there is none."""
    if not shutil.which("nvidia-smi"):
        sys.exit("there is no GPU here (nvidia-smi is missing)")
    query = [
        "nvidia-smi",
        "--query-gpu=uuid,name,driver_version",
        "--format=csv,noheader",
        "-i",
        "0",
    ]
    uuid, *rest = (
        subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    )
    return GpuUuid(uuid), ", driver ".join(rest)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/kyb-bench"))
    parser.add_argument("--sizes", type=int, nargs="*", default=[2, 16, 32], help="GiB")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--layers", type=int, default=32, help="of the model; 0: without it")
    parser.add_argument("--steps", type=int, default=300, help="of training; 0: without it")
    parser.add_argument("--others", nargs="*", choices=OTHERS, default=list(OTHERS))
    parser.add_argument("--many", type=int, default=100, help="switches in a row; 0: without")
    parser.add_argument("--pairs", type=int, default=3, help="for the overhead; 0: without it")
    asked = parser.parse_args()
    uuid, words = card()
    largest = max([*asked.sizes, asked.layers // 2 + 2, 1]) * GIB
    node = Node(asked.folder, largest + 2 * GIB)
    began = time.monotonic()
    node.mechanism.prepare(uuid, largest + GIB)
    results: dict[str, Any] = {"pinning_seconds": time.monotonic() - began}
    try:
        limit = pinned_limit(node, uuid)
        for gib in asked.sizes:
            results[f"driver_{gib}"] = filled(node, gib, asked.times, limit)
        if asked.layers:
            results["model"] = served(node, asked.layers, asked.times, limit)
        if asked.steps:
            results["training"] = trained(node, asked.steps, limit)
        results["others"] = {name: other(node, name, limit) for name in asked.others}
        if asked.pairs:
            results["overhead"] = overhead(node, asked.pairs)
        if asked.many:
            results["many"] = repeated(node, asked.many, limit)
    finally:
        node.mechanism.close()
        shutil.rmtree(asked.folder, ignore_errors=True)
    print(json.dumps({"benchmark": "bench-park", **results, "limit": limit, "machine": words,
                      "host": platform.release()}))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
