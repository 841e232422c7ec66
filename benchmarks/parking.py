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
from benchmarks.harness.gpuprograms import (
    PROGRAMS,
    Node,
    Program,
    Switch,
    park,
    program,
    resume,
    switch,
)
from benchmarks.harness.ratios import ratios
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
        "copying": median([one.copying for one in switches]),
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
        + f" copying {found['copying'] * 1e3:.0f} ms",
        flush=True,
    )
    return found


_HOST_MIB = "1300"  # with what the driver and Python have CRIU makes an image of 2 GB of it

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
        with program(node, "driver.py", str(gib), "20", _HOST_MIB) as one, ways.woken(one):
            one.wait(bool)
            done = ways.through_image(node, one, folder)
            image = sum(file.stat().st_size for file in folder.iterdir())
            found = summary(f"{gib} GiB, through an image", [done], limit)
            dead_to_running = sum(done.seconds[p] for p in ("restore", "adopt")) + done.resume
            one.ask("verify")
            until = time.monotonic() + 60.0
            while not one.facts().get("verified") and time.monotonic() < until:
                time.sleep(0.01)
            print(
                f"  dead to running {dead_to_running:.2f} s, host image {image / 1e9:.2f} GB,"
                f" of {(image + done.zeros) / 1e9:.2f} as CRIU wrote it"
            )
            told = {
                "image_bytes": image,
                "of_criu_bytes": image + done.zeros,
                "dead_to_running": dead_to_running,
            }
            return {**found, **told, "wrong": one.facts()["wrong"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compressed(node: Node, gib: int, times: int, limit: Limit) -> Found:
    """bf16 weights, pressed in the pool while they are parked."""
    with program(node, "weights.py", str(gib)) as one:
        one.wait(bool)
        switches, facts = ways.pressed(node, one, times)
        found = summary(f"{gib} GiB of bf16, pressed", switches, limit)
        print(
            f"  pressed in {facts['pressing_seconds']:.1f} s: {facts['of_the_ram']:.3f} of the RAM"
        )
        found |= facts | {"copied": switches[-1].copied, "wrong": verified(one)}
        node.pool.free(one.body.uid)
        return found


def beside(node: Node, gib: int) -> Found:
    """Token steps of a model that is active, alone and while another one's weights, which are
    parked, are pressed by the same card. Milliseconds."""
    found: Found = {}
    with program(node, "weights.py", str(gib), name="parked") as one:
        one.wait(bool)
        kept = park(node, one, Switch(), node.mechanism)
        for name in ("alone", "pressing"):
            with program(node, "model.py", "8", "1500") as other:
                other.wait(bool)
                if name == "pressing":
                    node.mechanism.press_in_the_background()
                facts = other.wait(lambda facts: bool(facts.get("ended")))
                found |= {name: facts["median_ms"], f"{name}_p99": facts["p99_ms"]}
        node.restart()  # which ends the pressing
        resume(node, one, Switch(), node.mechanism, kept)
        found["wrong"] = verified(one)
        node.pool.free(one.body.uid)
    words = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    print(f"token step beside the pressing of {gib} GiB, ms: {words}", flush=True)
    return found


def turns(node: Node, gib: int, times: int) -> Found:
    """Two programs of so many GiB take turns on the card; of neither anything changes."""
    with program(node, "driver.py", str(gib), name="one") as one:
        one.wait(bool)
        with program(node, "driver.py", str(gib), name="other") as other:
            other.wait(bool)
            whole, alone = ways.taken_turns(node, one, other, times)
            print(f"{gib} GiB for {gib}: {whole:.3f} s; the resume alone {alone:.3f} s")
            wrong = verified(one) + verified(other)
            for each in (one, other):
                node.pool.free(each.body.uid)
            return {"switch": whole, "resume": alone, "wrong": wrong}


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
    parser.add_argument("--compressed", type=int, nargs="*", default=[32], help="GiB")
    parser.add_argument("--beside", type=int, nargs="*", default=[16], help="GiB that are pressed")
    parser.add_argument("--turns", type=int, nargs="*", default=[32], help="GiB of each of two")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--layers", type=int, default=32, help="of the model; 0: without it")
    parser.add_argument("--steps", type=int, default=300, help="of training; 0: without it")
    parser.add_argument("--others", nargs="*", choices=OTHERS, default=list(OTHERS))
    parser.add_argument("--many", type=int, default=100, help="switches in a row; 0: without")
    parser.add_argument("--pairs", type=int, default=3, help="for the overhead; 0: without it")
    parser.add_argument("--json", type=Path, help="a file for the figures, written as they come")
    asked = parser.parse_args()
    uuid, words = card()
    sizes = [*asked.sizes, *asked.image, *asked.compressed, *asked.beside, asked.layers // 2 + 2, 1]
    sizes += [2 * gib for gib in asked.turns]
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
    by_size: list[tuple[str, list[int], Callable[[int], Found]]] = [
        ("driver", asked.sizes, lambda gib: filled(node, gib, asked.times, limit)),
        ("compressed", asked.compressed, lambda gib: compressed(node, gib, asked.times, limit)),
        ("turns", asked.turns, lambda gib: turns(node, gib, asked.times + 1)),
        ("beside", asked.beside, lambda gib: beside(node, gib)),
        ("restart", asked.sizes[-1:], lambda gib: restarts.after_a_restart(node, uuid, gib)),
        ("by_driver", asked.by_driver, lambda gib: by_driver(node, gib, 2, limit)),
        ("image", asked.image, lambda gib: through_image(node, gib, limit)),
    ]
    others: list[tuple[str, int, Callable[[], Found]]] = [
        ("model", asked.layers, lambda: served(node, asked.layers, asked.times, limit)),
        ("training", asked.steps, lambda: trained(node, asked.steps, limit)),
        *((name, 1, partial(other, node, name, limit)) for name in asked.others),
        ("overhead", asked.pairs, lambda: overhead(node, asked.pairs)),
        ("many", asked.many, lambda: repeated(node, asked.many, limit)),
    ]
    sized = {f"{name}_{gib}": partial(work, gib) for name, some, work in by_size for gib in some}
    return {**sized, **{name: work for name, wanted, work in others if wanted}}


if __name__ == "__main__":
    sys.exit(main())
