"""
`python -m benchmarks.pairs`: a job on two GPUs, joined by NCCL, parked and resumed. Needs two.

An unmodified PyTorch program (gpuworkloads/ranks.py) computes all the time; every step's bits are
compared with those of a run that was not parked and had no guest. Times are from the first word to
the last: stopping all ranks at one place, draining, copying, giving the memory back. Prints a table
as it goes, and as last line one of JSON; what is known so far is in `--results`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import report
from benchmarks.harness.gpuprograms import Node, Program, Switch, program
from kybernate.clients.errors import Refused, Retry
from kybernate.model.ids import GpuUuid
from nodeagent.mechanisms.halting import at_once

GIB = 2**30
CARDS = 2
_LIMIT_S = 20.0
_LAYERS, _LAYER_GIB = 32, 0.5  # of 512 MiB on each card
# Multicast memory cannot leave the card, and registered buffers stay where they were: what the
# webhook sets for a seat of several cards.
_SETTINGS = {
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_GRAPH_REGISTER": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A way to run the job. `hold`: seconds it stays parked; `after`: it is watched so long then.
    `as_undisturbed`: its sums are those of the undisturbed run; else its own first steps, before
    any park, are the measure. `seconds`: what it takes in all, at most."""

    name: str
    rounds: int
    as_undisturbed: bool = False
    layers: int = _LAYERS
    hold: float = 0.1
    after: float = 0.0
    settings: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0


def cases(rounds: int) -> tuple[Case, ...]:
    """All of them, the one that counts first."""
    return (
        Case(
            name="two processes, waiting each step",
            rounds=rounds,
            as_undisturbed=True,
            seconds=30 + 1.6 * rounds,
        ),
        Case(
            name="two processes, 64 steps ahead",
            rounds=5,
            as_undisturbed=True,
            settings={"RANKS_READ_EVERY": "64"},
        ),
        Case(name="a step is a CUDA graph", rounds=5, settings={"RANKS_GRAPH": "1"}),
        Case(
            name="two communicators",
            rounds=5,
            as_undisturbed=True,
            settings={"RANKS_GROUPS": "2"},
        ),
        Case(name="one process, two cards", rounds=5, settings={"RANKS_TOGETHER": "1"}),
        Case(
            name="memory by CUDA's IPC",
            rounds=5,
            as_undisturbed=True,
            settings={"NCCL_CUMEM_ENABLE": "0", "NCCL_CUMEM_HOST_ENABLE": "0"},
        ),
        Case(
            name="parked 20 s, time-out 8 s",
            rounds=1,
            layers=4,
            hold=20.0,
            after=12.0,
            settings={"RANKS_TIMEOUT": "8", "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": "10"},
            seconds=75.0,
        ),
    )


def switch(node: Node, one: Program, hold: float) -> Switch:
    """Park and resume as an agent does, both cards at once, and see it go on."""
    done, mechanism, body = Switch(), node.mechanism, one.body
    done.timed("stop and drain", lambda: mechanism.lock(body, _LIMIT_S))
    parts = done.timed("list", lambda: mechanism.parts(body))
    done.size = sum(part.size for part in parts)
    slot = node.pool.reserve("bench", done.size)
    kept = done.timed(
        "copy out",
        lambda: at_once(lambda part: mechanism.copy_out(body, part, slot, lambda _: None), parts),
    )
    slot.seal(tuple(kept))
    done.copied = sum(tally.copied for tally in list(node.mechanism.tallies)[-len(parts) :])
    done.timed(
        "release",
        lambda: at_once(lambda part: mechanism.release(body, part, _LIMIT_S), parts),
    )
    done.used = used_mib()
    steps = one.facts()["steps"]
    time.sleep(hold)
    if one.facts()["steps"] != steps:
        raise RuntimeError("it went on while it was parked")
    done.timed("list again", lambda: mechanism.parts(body))
    done.timed(
        "copy in",
        lambda: at_once(lambda part: mechanism.copy_in(body, part, slot, lambda _: None), kept),
    )
    done.timed("open", lambda: mechanism.unlock(body, _LIMIT_S))
    node.pool.free("bench")
    one.goes_on()
    return done


PARK = ("stop and drain", "list", "copy out", "release")
RESUME = ("list again", "copy in", "open")


def total(one: Switch, phases: tuple[str, ...]) -> float:
    """Seconds from the first word to the last."""
    return sum(one.seconds[phase] for phase in phases)


def measured(node: Node, case: Case, expected: Path) -> dict[str, Any]:
    """One case; its error in words where it does not come to its end."""
    more = {**_SETTINGS, **case.settings}
    if case.as_undisturbed:
        more["RANKS_EXPECTED"] = str(expected)
    switches: list[Switch] = []
    try:
        with program(node, "ranks.py", str(case.layers), more=more) as one:
            one.wait(lambda facts: facts["steps"] > 80)
            while len(switches) < case.rounds:
                switches.append(switch(node, one, case.hold))
            until = time.monotonic() + case.after
            while time.monotonic() < until:
                one.goes_on()
                time.sleep(0.1)
            facts, left = one.goes_on(), node.mechanism.left(one.body)
    except (RuntimeError, Refused, Retry, OSError, KeyError) as error:
        failed = f"{type(error).__name__}: {error}"
        print(f"{case.name}: round {len(switches) + 1} failed: {failed}", flush=True)
        print((node.folder / "errors.txt").read_text(errors="replace")[-3000:], flush=True)
        return {"failed": failed, "rounds": len(switches), **told(switches)}
    found = {
        "rounds": len(switches),
        "wrong": facts["wrong"],
        "alike": facts["alike"],
        "steps": facts["steps"],
        "step_ms": facts["median_ms"],
        "left": left,
        **told(switches),
    }
    row(case.name, found)
    return found


def told(switches: list[Switch]) -> dict[str, Any]:
    """Medians and the worst; nothing of nothing."""
    if not switches:
        return {}
    parks, resumes = ([total(one, way) for one in switches] for way in (PARK, RESUME))
    return {
        "gib": switches[0].size / GIB,
        "copied_gib": report.middle([one.copied / GIB for one in switches]),
        "park": report.middle(parks),
        "resume": report.middle(resumes),
        "park_worst": max(parks),
        "resume_worst": max(resumes),
        "phases": {
            phase: report.middle([one.seconds[phase] for one in switches])
            for phase in (*PARK, *RESUME)
        },
        "parked_mib": switches[-1].used,
        "parks": [round(seconds, 3) for seconds in parks],
        "resumes": [round(seconds, 3) for seconds in resumes],
    }


def row(name: str, found: Mapping[str, Any]) -> None:
    """One line for people."""
    phases = " ".join(f"{phase} {s * 1e3:.0f}" for phase, s in found["phases"].items())
    print(
        f"{name:34} {found['gib']:5.1f} GiB  {found['rounds']:3} rounds"
        f"  park {found['park']:.3f} s (worst {found['park_worst']:.3f})"
        f"  resume {found['resume']:.3f} s (worst {found['resume_worst']:.3f})"
        f"  wrong {found['wrong']}  {found['step_ms']:.2f} ms a step  [{phases} ms]",
        flush=True,
    )


def undisturbed(node: Node, layers: int) -> Path:
    """The sums of a run without the guest."""
    more = {**_SETTINGS, "RANKS_END": "128"}
    with program(node, "ranks.py", str(layers), guest=False, more=more) as one:
        try:
            facts = one.wait(lambda facts: bool(facts.get("ended")))
        except RuntimeError:
            print((node.folder / "errors.txt").read_text(errors="replace")[-3000:], flush=True)
            raise
    if facts["wrong"] or not facts["alike"] or len(set(facts["sums"])) < len(facts["sums"]):
        raise RuntimeError(f"the undisturbed run is not the same each time: {facts['wrong']}")
    print(f"undisturbed, {layers} layers: {facts['median_ms']:.2f} ms a step", flush=True)
    path = node.folder / f"expected-{layers}.json"
    path.write_text(json.dumps(facts["sums"]))
    return path


def used_mib() -> tuple[int, ...]:
    """Of each card, as the driver shows it."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    shown = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    return tuple(int(line) for line in shown.split())


def cards() -> tuple[GpuUuid, ...]:
    """The first two; exits where there are fewer."""
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (FileNotFoundError, subprocess.CalledProcessError):
        found = []
    if len(found) < CARDS:
        sys.exit(f"this needs {CARDS} GPUs, there are {len(found)}")
    return tuple(GpuUuid(one) for one in found[:CARDS])


def rates(node: Node, size: int) -> dict[str, Any]:
    """Plain pinned copies: each card alone, and both at once (bytes a second, each way)."""
    alone = [node.mechanism.rates(uuid, size) for uuid in node.cards]
    both = at_once(lambda uuid: node.mechanism.rates(uuid, size), node.cards)
    for way in ("park", "resume"):
        words = ", ".join(f"{one[way] / 1e9:.1f}" for one in alone)
        at_one_time = ", ".join(f"{one[way] / 1e9:.1f}" for one in both)
        print(f"pinned copies, {way}: alone {words}; at once {at_one_time} GB/s", flush=True)
    return {"alone": alone, "at_once": both}


def prepared(folder: Path, uuids: tuple[GpuUuid, ...], layers: int) -> Node:
    """An agent's parts, with a pool that every card's worker has pinned."""
    size = int(CARDS * (layers * _LAYER_GIB + 1.5) * GIB)
    node, began = Node(folder, 3 * size, uuids), time.monotonic()
    at_once(lambda uuid: node.mechanism.prepare(uuid, size), uuids[:1])
    at_once(lambda uuid: node.mechanism.prepare(uuid, size), uuids[1:])
    print(f"{size / GIB:.0f} GiB made and pinned twice in {time.monotonic() - began:.1f} s")
    return node


def run(node: Node, asked: argparse.Namespace) -> dict[str, Any]:
    """All cases that fit the time."""
    end = time.monotonic() + asked.seconds
    results: dict[str, Any] = {"rates": rates(node, 8 * GIB), "cases": {}}
    chosen = [one for one in cases(asked.rounds) if not asked.only or one.name in asked.only]
    expected = undisturbed(node, _LAYERS)
    for case in chosen:
        if time.monotonic() + case.seconds > end:
            print(f"{case.name}: not run, there is no time left", flush=True)
            continue
        results["cases"][case.name] = measured(node, case, expected)
        asked.results.write_text(json.dumps(results))
    return results


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/kyb-bench"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=420.0, help="what is left of the machine")
    parser.add_argument("--only", nargs="*", default=[], help="cases by name")
    parser.add_argument("--results", type=Path, default=Path("pairs.json"))
    asked = parser.parse_args()
    os.environ.update(_SETTINGS)
    node = prepared(asked.folder, cards(), _LAYERS)
    try:
        results = run(node, asked)
    finally:
        node.end()
    first: Mapping[str, Any] = next(iter(results["cases"].values()), {})
    seconds = {f"nccl_{way}_2x16": first[way] for way in ("park", "resume") if way in first}
    report.last_line("pairs", of_limit(results, first), seconds, **results)
    return 0


def of_limit(results: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, float]:
    """How near a whole park and resume come to both cards' plain copies at once."""
    sums = {way: sum(one[way] for one in results["rates"]["at_once"]) for way in ("park", "resume")}
    return {
        f"nccl_{way}_of_limit": first["gib"] * GIB / sums[way] / first[way]
        for way in sums
        if way in first
    }


if __name__ == "__main__":
    sys.exit(main())
