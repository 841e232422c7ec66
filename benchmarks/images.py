"""
`python -m benchmarks.images`: what a process image costs beside runc's own.

A process of 1 GiB is dumped, and goes on in a new container: once by `runc checkpoint` and `runc
restore` by hand, once by nodeagent.images and kybernate-runc, in turns, each with fresh containers.
End to end is the dump, and from `create` to the next number. Needs root; no Kubernetes, no GPU. The
agent's side of `creating` is in this process. Beside them runc restores lazily: memory comes from
CRIU's page server while the process runs already, `whole` is when that has sent all of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import bundles, report
from benchmarks.harness.bundles import Bundles, Counted
from kybernate.clients.runtimecalls import Call, Op
from kybernate.runtime.clock import SystemClock
from kybernate.testing.runtimelistener import RuntimeListener, agree
from nodeagent.images import Body, RuncImages, body_of, criu
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from testbed.assets import native
from testbed.node import machine, programs

PRIVATE = "--in-a-namespace-of-its-own"
PHASES = ("dump", "prepare", "create", "next number")
WHOLE = "whole"
HAND, OURS, LAZY = "runc by hand", "kybernate", "runc, lazily"
_AS_RUNC = ("--tcp-established", "--ext-unix-sk", "--file-locks")


@dataclass
class Agent:
    """Answers `creating` with the image it is given, and keeps how long preparing took."""

    images: RuncImages
    image: Path = Path()
    prepared: float = 0.0

    def answer(self, call: Call) -> dict[str, str]:
        """As the agent does."""
        if call.op is not Op.CREATING or call.bundle is None:
            return agree(call)
        began = time.perf_counter()
        fields = self.images.restoration(self.image, call.bundle)
        self.prepared = time.perf_counter() - began
        return {"ok": "restore", **fields}


@dataclass
class Bench:
    """The parts, and what was measured: seconds by phase, of each way."""

    made: Bundles
    agent: Agent
    freezer: Freezer
    means: str = ""  # what froze a woken container
    found: dict[str, list[dict[str, float]]] = field(
        default_factory=lambda: {HAND: [], OURS: [], LAZY: []}
    )

    def warm_up(self) -> None:
        """A round of each that does not count: programs come from the disk for the first time."""
        for way in (self.by_hand, self.by_us, self.lazily):
            way(-1)
        for rounds in self.found.values():
            rounds.clear()

    def by_hand(self, number: int) -> None:
        """One round of runc alone."""
        dump, image = self._dumped(f"hand-{number}")
        second, counted = self.made.make(f"hand-{number}-woken"), Counted()
        began = time.perf_counter()
        restore = ("restore", "--detach", "--bundle", second, "--image-path", image)
        create = self.made.runc(*restore, second.name, out=counted.end)
        after = counted.first()[0] - began - create
        self._keep(HAND, dict(zip(PHASES, (dump, 0.0, create, after), strict=True)))
        self.made.remove(second)
        shutil.rmtree(image)

    def lazily(self, number: int) -> None:
        """Likewise, with its memory to come from a page server."""
        dump, image = self._dumped(f"lazy-{number}")
        work = self.made.folder / "pages"
        work.mkdir()
        second, counted = self.made.make(f"lazy-{number}-woken"), Counted()
        began = time.perf_counter()
        with subprocess.Popen(
            ["criu", "lazy-pages", "-D", image, "-W", work, "-o", "log"]
        ) as pages:
            _await(lambda: (work / "lazy-pages.socket").exists() or pages.poll() is not None)
            ready = time.perf_counter() - began
            where = ("--bundle", second, "--image-path", image, "--work-path", work)
            restore = ("restore", "--detach", "--lazy-pages", *where)
            create = self.made.runc(*restore, second.name, out=counted.end)
            after = counted.first()[0] - began - ready - create
        whole = time.perf_counter() - began
        phases = (dump, ready, create, after)
        self._keep(LAZY, dict(zip(PHASES, phases, strict=True)) | {WHOLE: dump + whole})
        self.made.remove(second)
        for folder in (image, work):
            shutil.rmtree(folder)

    def _dumped(self, name: str) -> tuple[float, Path]:
        """Of a container that is gone then, by runc alone: seconds, and its image."""
        first, image = self._started(name), self.made.folder / f"{name}-image"
        way = ("checkpoint", "--leave-running", *_AS_RUNC, "--image-path", image)
        dump = self.made.runc(*way, first.name)
        self.made.remove(first)
        return dump, image

    def by_us(self, number: int) -> None:
        """One round with the image as the agent makes it."""
        first = self._started(f"ours-{number}")
        image = self.made.folder / "our-image"
        began = time.perf_counter()
        self.agent.images.dump(self._body(first), image)
        dump = time.perf_counter() - began
        self.made.remove(first)
        self.agent.image = image
        second, counted = self.made.make(f"ours-{number}-woken"), Counted()
        began = time.perf_counter()
        program = (native.runtime(), "--root", self.made.root)
        create = self.made.run(*program, "create", "--bundle", second, second.name, out=counted.end)
        self.made.run(*program, "start", second.name)
        self.freezer.thaw(self._body(second).pid, second.name)
        after = counted.first()[0] - began - create
        phases = (dump, self.agent.prepared, create - self.agent.prepared, after)
        self._keep(OURS, dict(zip(PHASES, phases, strict=True)))
        woken = self._body(second)
        self.means = self.freezer.freeze(woken.pid, second.name)
        self.freezer.thaw(woken.pid, second.name)
        self.made.remove(second)
        shutil.rmtree(image)

    def _started(self, name: str) -> Path:
        """A container that counts."""
        bundle, counted = self.made.make(name), Counted()
        self.made.runc("run", "--detach", "--bundle", bundle, name, out=counted.end)
        counted.first()
        return bundle

    def _body(self, bundle: Path) -> Body:
        state = json.loads((self.made.root / bundle.name / "state.json").read_text())
        pid, started = state["init_process_pid"], state["init_process_start"]
        return body_of(bundle.name, pid, started, self.made.root / bundle.name / "exec.fifo")

    def _keep(self, way: str, phases: dict[str, float]) -> None:
        self.found[way].append(phases)
        total = sum(phases[phase] for phase in PHASES)
        print(f"{way:14} {total:6.2f} s", file=sys.stderr, flush=True)


def _measured(rounds: int, mebibytes: int) -> Bench:
    with tempfile.TemporaryDirectory(prefix="kyb-") as name:
        folder = Path(name)
        named = programs.of_images()
        path = bundles.programs(folder / "bin", named, criu.options(str(named["criu"])))
        os.environ["PATH"] = f"{path}{os.pathsep}{os.environ['PATH']}"
        settings = folder / "runtime.conf"
        settings.write_text(f"socket = {folder / 'runtime.sock'}\n")
        environment = {**os.environ, "KYB_RUNTIME_CONF": str(settings)}
        freezer = Freezer(SystemClock(), Cgroups())
        images = RuncImages(freezer, plugins=native.criu_plugins())
        bench = Bench(Bundles(folder / "b", mebibytes, environment), Agent(images), freezer)
        with RuntimeListener(folder / "runtime.sock", bench.agent.answer):
            bench.warm_up()
            for number in range(rounds):
                for way in _in_turn(number, bench.by_hand, bench.by_us, bench.lazily):
                    way(number)
        return bench


def _in_turn(number: int, *ways: Callable[[int], None]) -> Sequence[Callable[[int], None]]:
    """Who comes first changes from round to round: the second one finds the disk busier."""
    return ways if number % 2 else ways[::-1]


def _await(look: Callable[[], bool]) -> None:
    while not look():
        time.sleep(0.001)


def _total(rounds: Sequence[Mapping[str, float]], phases: Sequence[str] = PHASES) -> float:
    """The median round."""
    return report.middle([sum(one[phase] for phase in phases) for one in rounds])


def _of_hand(
    found: Mapping[str, Sequence[Mapping[str, float]]],
    phases: Sequence[str] = PHASES,
    way: str = OURS,
) -> float:
    """The median of the rounds' ratios: the ways of a round met the same machine."""
    pairs = zip(found[way], found[HAND], strict=True)
    return report.middle([_total([ours], phases) / _total([hand], phases) for ours, hand in pairs])


def _print(found: Mapping[str, Sequence[Mapping[str, float]]], mebibytes: int) -> None:
    rows = [
        [way, *(f"{_total(rounds, [phase]):.3f}" for phase in PHASES), f"{_total(rounds):.3f}"]
        for way, rounds in found.items()
    ]
    report.table(f"An image of {mebibytes} MiB, seconds", ["", *PHASES, "end to end"], rows)
    print(f"Lazily, with all of its memory: {_total(found[LAZY], [WHOLE]):.3f} s end to end\n")


def main(argv: Sequence[str]) -> int:
    """Run it; the exit status is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="bench-images", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each way")
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument(PRIVATE, action="store_true", dest="private", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    problem = machine.why_no_containers() or native.why_not()
    if problem:
        raise SystemExit(f"this machine cannot run it: {problem}")
    if not given.private:
        bundles.private([sys.executable, "-m", "benchmarks.images", PRIVATE, *argv])
    bench = _measured(given.rounds, given.mebibytes)
    found = bench.found
    _print(found, given.mebibytes)
    wake = PHASES[1:]
    report.last_line(
        "bench-images",
        {
            "end_to_end_of_runc": _of_hand(found),
            "dump_of_runc": _of_hand(found, ["dump"]),
            "wake_of_runc": _of_hand(found, wake),
            "lazy_wake_of_runc": _of_hand(found, wake, LAZY),
        },
        {"dump": _total(found[OURS], ["dump"]), "wake": _total(found[OURS], wake)},
        rounds=given.rounds,
        freezer=bench.means,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
