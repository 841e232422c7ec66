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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import restarts, ways
from benchmarks.harness.gpuprograms import PROGRAMS, Node, Program, Switch, program, switch
from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid

GIB = 2**30
Limit = dict[str, float]
"""Bytes a second of plain pinned copies, to `park` and to `resume`."""
Found = dict[str, Any]
Way = Callable[[Node, Program, int], list[Switch]]


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def summary(name: str, switches: list[Switch], limit: Limit) -> Found:
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


WAYS: Mapping[str, Way] = {
    "all changed": ways.changed,
    "unchanged": ways.unchanged,
    "5 % changed": ways.some_changed,
    "deep": ways.deep,
}


def filled(node: Node, gib: int, times: int, limit: Limit) -> dict[str, Any]:
    """A program of the driver API, in segments of 20 MiB as PyTorch's allocator has them; every
    way that the guest parks it. After one that fails another program is started for the rest."""
    found: dict[str, Any] = {}
    while left := [name for name in WAYS if name not in found]:
        with program(node, "driver.py", str(gib)) as one:
            one.wait(bool)
            for name in left:
                found[name] = _parked(node, one, f"{gib} GiB, {name}", WAYS[name], times, limit)
                if "failed" in found[name]:
                    node.pool.free(one.body.uid)
                    break
            else:
                found |= {"wrong": verified(one), "left": node.mechanism.left(one.body)}
    return found


def _parked(node: Node, one: Program, name: str, way: Way, times: int, limit: Limit) -> Found:
    return tried(name, lambda: summary(name, way(node, one, times), limit))


def tried(what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it found; its error in words where it does not run here."""
    try:
        return work()
    except (RuntimeError, Refused, Retry, OSError, subprocess.CalledProcessError) as error:
        print(f"{what:28} failed: {error}", flush=True)
        return {"failed": f"{type(error).__name__}: {error}"}


def verified(one: Program) -> int:
    """How many of its segments are not what the program put there."""
    one.ask("verify")
    return int(one.wait(lambda facts: facts["verified"] == 1)["wrong"])


def by_driver(node: Node, gib: int, times: int, limit: Limit) -> dict[str, Any]:
    """The same program without our library, by the driver's checkpoint."""
    with program(node, "driver.py", str(gib), guest=False) as one:
        one.wait(bool)
        switches = ways.by_driver(node, one, times)
        for one_switch in switches:
            one_switch.size = gib * GIB  # the driver does not say
        found = summary(f"{gib} GiB, by the driver", switches, limit)
        return {**found, "wrong": verified(one)}


def through_image(node: Node, gib: int, limit: Limit) -> Found:
    """Parked, ended, made again from CRIU's image, resumed."""
    if why := ways.why_no_image():
        raise RuntimeError(why)
    folder = node.folder / "image"
    folder.mkdir()
    try:
        with program(node, "driver.py", str(gib)) as one, ways.woken(one):
            one.wait(bool)
            done = ways.through_image(node, one, folder)
            found = summary(f"{gib} GiB, through an image", [done], limit)
            dead_to_running = sum(done.seconds[p] for p in ("restore", "adopt")) + done.resume
            one.ask("verify")
            until = time.monotonic() + 60.0
            while not one.facts().get("verified") and time.monotonic() < until:
                time.sleep(0.01)
            return {**found, "dead_to_running": dead_to_running, "wrong": one.facts()["wrong"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ratios(results: Mapping[str, Any]) -> dict[str, float]:
    """The figures that keep their names (docs/explanation/performance.md), as far as measured."""
    found: dict[str, float] = {}
    for name, rows in results.items():
        kind, _, gib = name.rpartition("_")
        if kind == "driver" and "failed" not in rows.get("all changed", rows):
            found |= _of_one_size(gib, rows)
            driver, park = results.get(f"by_driver_{gib}", {}), rows["all changed"]
            for way in ("park", "resume"):
                if way in driver:
                    found[f"driver_over_{way}_{gib}"] = driver[way] / park[way]
        if kind == "image" and "dead_to_running" in rows:
            found[f"dead_to_running_{gib}"] = rows["dead_to_running"]
    return found


def _of_one_size(gib: str, rows: Mapping[str, Found]) -> dict[str, float]:
    full, deep = rows["all changed"], rows["deep"]
    found = {f"{way}_{gib}": full[way] for way in ("park_of_limit", "resume_of_limit")}
    for name, row in (("park_unchanged", "unchanged"), ("park_some_changed", "5 % changed")):
        if "park" in rows[row]:
            found[f"{name}_{gib}"] = rows[row]["park"]
    if "park" in deep:
        found[f"deep_extra_{gib}"] = max(deep[way] - full[way] for way in ("park", "resume"))
    return found


def served(node: Node, layers: int, times: int, limit: Limit) -> dict[str, Any]:
    """The language model with a CUDA graph, answers compared."""
    with program(node, "model.py", str(layers)) as one:
        one.wait(bool)
        switches = [switch(node, one) for _ in range(times)]
        facts = one.goes_on()
        found = summary("PyTorch model, CUDA graph", switches, limit)
        told = {name: facts[name] for name in ("wrong", "steps", "longest")}
        return {**found, **told, "left": node.mechanism.left(one.body)}


def trained(node: Node, steps: int, limit: Limit) -> dict[str, Any]:
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


def other(node: Node, name: str, limit: Limit) -> Found:
    """One of OTHERS."""
    (script, *rest), environment = OTHERS[name]
    script = built(node.folder) if script == "static" else script
    with program(node, script, *rest, more=environment) as one:
        one.wait(bool)
        switches = [switch(node, one) for _ in range(3)]
        facts = one.goes_on()
        found = summary(name, switches, limit)
        return {**found, "wrong": facts["wrong"], "left": node.mechanism.left(one.body)}


def built(folder: Path) -> str:
    """static.cu as a program."""
    made = folder / "static"
    subprocess.run(["nvcc", "-O2", "-o", str(made), str(PROGRAMS / "static.cu")], check=True)
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


def repeated(node: Node, times: int, limit: Limit) -> dict[str, Any]:
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


def prepared(folder: Path, uuid: GpuUuid, largest: int) -> tuple[Node, float]:
    """What parks programs of up to `largest` bytes, its pool pinned, and the seconds that took."""
    node, began = Node(folder, largest + 2 * GIB, (uuid,)), time.monotonic()
    node.mechanism.prepare(uuid, largest + GIB)
    return node, time.monotonic() - began


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
    parser.add_argument("--by-driver", type=int, nargs="*", default=[2, 16], help="GiB")
    parser.add_argument("--image", type=int, nargs="*", default=[13], help="GiB")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--layers", type=int, default=32, help="of the model; 0: without it")
    parser.add_argument("--steps", type=int, default=300, help="of training; 0: without it")
    parser.add_argument("--others", nargs="*", choices=OTHERS, default=list(OTHERS))
    parser.add_argument("--many", type=int, default=100, help="switches in a row; 0: without")
    parser.add_argument("--pairs", type=int, default=3, help="for the overhead; 0: without it")
    parser.add_argument("--json", type=Path, help="a file for the figures, written as they come")
    asked = parser.parse_args()
    uuid, words = card()
    sizes = [*asked.sizes, *asked.by_driver, *asked.image, asked.layers // 2 + 2, 1]
    node, pinning = prepared(asked.folder, uuid, max(sizes) * GIB)
    whole: Found = {"benchmark": "bench-park", "machine": words, "host": platform.release()}
    results: Found = {"pinning_seconds": pinning}
    try:
        limit = pinned_limit(node, uuid)
        for name, work in steps(node, uuid, asked, limit).items():
            results[name] = tried(name, work)
            whole |= {"ratios": ratios(results), **results, "limit": limit}
            if asked.json:
                asked.json.write_text(json.dumps(whole))
    finally:
        node.end()
        shutil.rmtree(asked.folder, ignore_errors=True)
    print(json.dumps(whole))
    return 0


def steps(
    node: Node, uuid: GpuUuid, asked: argparse.Namespace, limit: Limit
) -> dict[str, Callable[[], Found]]:
    """What is to be measured, by name, in order."""
    some: dict[str, Callable[[], Found]] = {}
    for gib in asked.sizes:
        some[f"driver_{gib}"] = partial(filled, node, gib, asked.times, limit)
    if asked.sizes:
        some["restart"] = partial(restarts.after_a_restart, node, uuid, max(asked.sizes))
    for gib in asked.by_driver:
        some[f"by_driver_{gib}"] = partial(by_driver, node, gib, 2, limit)
    for gib in asked.image:
        some[f"image_{gib}"] = partial(through_image, node, gib, limit)
    if asked.layers:
        some["model"] = partial(served, node, asked.layers, asked.times, limit)
    if asked.steps:
        some["training"] = partial(trained, node, asked.steps, limit)
    for name in asked.others:
        some[name] = partial(other, node, name, limit)
    if asked.pairs:
        some["overhead"] = partial(overhead, node, asked.pairs)
    if asked.many:
        some["many"] = partial(repeated, node, asked.many, limit)
    return some


if __name__ == "__main__":
    sys.exit(main())
