"""
What the next checkpoint of a training job costs, by what changed in its GPU since the last one.

    .venv/bin/python -m benchmarks.snapshots [--size 1Gi] [--folder DIR]

GPU contents only, as an agent has them from its pool, in chunks of 2 MiB: sealed once, changed as a
trainer does, sealed again, and both demoted into a store (a folder). Patterns: nothing; adapters
(3 % of the chunks, side by side: what LoRA trains, with its optimizer); 5 % of the chunks,
scattered; 5 % of all pages of 4 KiB, scattered, which is every chunk; all, as full fine-tuning
does.
`second_*` are the second's of the first's: bytes written to and added on the node's disk, bytes put
into the store, and seconds, in which the workload stands still.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.harness import report
from kybernate.api.quantity import parse_bytes
from kybernate.artifacts.facts import GpuPart
from kybernate.runtime import logs
from kybernate.runtime.clock import SystemClock
from kybernate.testing.artifacts import FACTS
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.objects import Given, Objects
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

_CHUNK, _PAGE = 2 * 1024 * 1024, 4096
Contents = list[bytes]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one checkpoint: seconds it took to seal, bytes written, added, and put into the store."""

    seconds: float
    written: int
    added: int
    put: int


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--size", type=parse_bytes, default=parse_bytes("1Gi"))
    parser.add_argument("--folder", default=None, help="on the disk to measure")
    asked = parser.parse_args()
    logs.configure("snapshots", "warning")
    contents = [os.urandom(_CHUNK) for _ in range(asked.size // _CHUNK)]
    costs: dict[str, tuple[Cost, Cost]] = {}
    for name, change in PATTERNS.items():
        with tempfile.TemporaryDirectory(dir=asked.folder, prefix="kyb-snapshots-") as folder:
            bench = Bench(Path(folder))
            costs[name] = (
                bench.snapshot("first", contents),
                bench.snapshot("second", change(contents)),
            )
    first = next(iter(costs.values()))[0]
    report.table(
        f"second checkpoint of {asked.size / 2**30:.2f} GiB, by what changed",
        ["", "seconds", "written MiB", "added MiB", "put MiB"],
        [_row("the first", first), *(_row(name, second) for name, (_, second) in costs.items())],
    )
    ratios = {}
    for name, (before, after) in costs.items():
        for what in ("seconds", "written", "added", "put"):
            ratios[f"second_{what}_{name}"] = getattr(after, what) / getattr(before, what)
    seconds = {name: after.seconds for name, (_, after) in costs.items()}
    report.last_line("snapshots", ratios, {"first": first.seconds, **seconds}, size=asked.size)


def _row(name: str, cost: Cost) -> list[str]:
    sizes = [f"{size / 2**20:.1f}" for size in (cost.written, cost.added, cost.put)]
    return [name, f"{cost.seconds:.3f}", *sizes]


class Bench:
    """A node's disk and a store."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder / "node", Keys.own(folder / "keys"), 1 << 50)
        given = Given(place=str(folder / "store"))
        self._objects = Objects(given, self._store, SystemClock())
        self._at = 0.0

    def snapshot(self, name: str, contents: Contents) -> Cost:
        """Sealed and demoted."""
        self._at += 1.0
        began = time.perf_counter()
        sealed = self._seal(name, contents)
        seconds = time.perf_counter() - began
        wanted = Wanted(namespace="default", name=name, signature=sealed.signature)
        facts = sealed.manifest.facts
        return Cost(seconds, facts.written, facts.added, self._objects.demote(wanted).written)

    def _seal(self, name: str, contents: Contents) -> Sealed:
        """As the story of sealing does, without its processes."""
        size = len(contents) * _CHUNK
        with self._store.draft("default", name, size) as draft:
            draft.write("gpu/0", contents)
            part = GpuPart(name="s0", card=0, size=size, digest="", path="gpu/0")
            return draft.seal(replace(FACTS, parts=(part,), sealed_at=self._at))


def _nothing(contents: Contents) -> Contents:
    return contents


def _adapters(contents: Contents) -> Contents:
    begin, count = len(contents) // 3, max(1, round(0.03 * len(contents)))
    fresh = [os.urandom(_CHUNK) for _ in range(count)]
    return [*contents[:begin], *fresh, *contents[begin + count :]]


def _scattered(contents: Contents) -> Contents:
    some = set(random.Random(1).sample(range(len(contents)), max(1, len(contents) // 20)))
    return [os.urandom(_CHUNK) if n in some else chunk for n, chunk in enumerate(contents)]


def _pages(contents: Contents) -> Contents:
    pages, made = _CHUNK // _PAGE, random.Random(1)
    changed = []
    for chunk in contents:
        fresh = bytearray(chunk)
        for page in made.sample(range(pages), pages // 20):
            fresh[page * _PAGE : (page + 1) * _PAGE] = made.randbytes(_PAGE)
        changed.append(bytes(fresh))
    return changed


def _all(contents: Contents) -> Contents:
    return [os.urandom(_CHUNK) for _ in contents]


PATTERNS: dict[str, Callable[[Contents], Contents]] = {
    "nothing": _nothing,
    "adapters": _adapters,
    "scattered": _scattered,
    "pages": _pages,
    "all": _all,
}


if __name__ == "__main__":
    main()
