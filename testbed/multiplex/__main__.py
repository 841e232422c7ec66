"""`python -m testbed.multiplex`: start, replay, check every answer, stop. Exit code 0: all well.

On a real node where this machine can run one and `--real` asks for it, else on a light node.
`--requests N` asks N shuffled requests as fast as clients may, instead of the trace; `--switches N`
has it fail where the GPU was given from model to model less often than that.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kybernate.clients.agents import Agent, NodeView
from kybernate.model.workload import State
from testbed.demo.__main__ import FAULTS, progress
from testbed.demo.asking import Client
from testbed.demo.screen import PlainScreen
from testbed.demo.stage import NODE, Stage, Unexpected, pod_of
from testbed.multiplex import objects, policies, workload
from testbed.multiplex.looking import Looking
from testbed.multiplex.replay import replay
from testbed.multiplex.screen import Screen, View, found, table
from testbed.multiplex.tally import Tally
from testbed.stack import NodeSpec, Stack, realnodes

LOADED = (State.ACTIVE, State.PARKED)
FAULTS_SHOWN = 20
_BRIEF_S = 0.1  # turns of those who ask shuffled requests
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """See the module's text."""
    given = _flags().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    folder = given.work or Path(tempfile.mkdtemp(prefix="kyb-mux-"))
    started = time.monotonic()
    try:
        play(folder, started, given)
    except FAULTS as fault:
        console.print(f"\ndemo-multiplex: {fault}", style="red", markup=False)
        console.print(f"logs are in {folder}")
        return 1
    except KeyboardInterrupt:
        console.print(f"\ndemo-multiplex: interrupted; all it started has ended ({folder})")
        return 130
    if given.work is None:
        shutil.rmtree(folder, ignore_errors=True)
    console.print("\ndemo-multiplex: ok")
    return 0


def play(folder: Path, started: float, given: argparse.Namespace) -> None:
    """The whole evening. Raises one of FAULTS."""
    names = workload.models(given.models)
    console.print(f"== {len(names)} models of {given.vram} behind one address, one 80 GB GPU")
    problem = None if given.real else "--real asks for a real one"
    problem = problem or realnodes.why_not()
    if problem:
        console.print(f"   the node is a light one, pods are local processes ({problem})")
    spec = NodeSpec(name=NODE, real=problem is None, profiles=_profiles(given))
    with Stack.start(folder, [spec], partial(progress, started)) as stack:
        progress(started, "starting the activator")
        activator = stack.start_activator()
        agent = Agent.on_node(stack.nodes[NODE].folder.agent_socket)
        client = Client(agent, partial(pod_of, stack), time.monotonic)
        stage = Stage(stack, PlainScreen(), agent, client)
        load(stage, names, given, partial(progress, started))
        console.print(f"   the page: {activator.view_url}/   models: {activator.url}/v1/models")
        tally = Tally(_requests(names, given))
        with Looking(activator.view_url) as looking, Screen(lambda: looking.latest):
            console.print(f"== {len(tally.requests)} requests from {given.clients} clients")
            replay(activator.url, tally, threading.Event().wait, given.ahead)
            stage.until(lambda: _settled(looking.latest), "every request counted as answered")
        agent.close()
        assert looking.latest is not None
        report(tally, looking.latest, started)
        if looking.latest["switches"] < given.switches:
            switches = looking.latest["switches"]
            raise Unexpected(f"{switches} switches, where {given.switches} were asked for")


def load(stage: Stage, names: tuple[str, ...], given: argparse.Namespace, say: object) -> None:
    """The models as Deployments, each loaded once; turns as short as a viewer likes."""
    hurried = policies.Pace(least=given.turn, most=max(_BRIEF_S, given.turn), idle=_BRIEF_S)
    policies.quicken(stage, hurried if given.requests else policies.Pace(least=given.turn))
    stage.apply(*objects.priority_classes(), *(objects.model(one, given.vram) for one in names))
    assert callable(say)
    say(f"loading {len(names)} models, one after the other")
    stage.until(lambda: _loaded(stage.view()) == len(names), "every model loaded once", 300.0)
    say("all have loaded; all but one are parked in RAM, their pods run on")


def report(tally: Tally, view: View, started: float) -> None:
    """The figures, and whether all is well. Raises Unexpected with what is wrong."""
    console.print(table(view))
    counts, asked = view["counts"], Counter(one.model for one in tally.requests)
    faults = tally.faults()
    figures = Table(show_header=False)
    for name, value in (
        ("requests", f"{len(tally.requests)} to {len(asked)} models"),
        ("answered", f"{len(tally.answers)}, {counts['turned_away']} turned away"),
        ("lost, mixed up, damaged or out of order", str(len(faults))),
        ("switches", str(view["switches"])),
        ("found their model in", found(view["hits"])),
        ("held at the activator", _percentiles([view["wait"][p] for p in ("p50", "p95", "p99")])),
        ("answered after", _percentiles(_of(tally.seconds()))),
        ("time", f"{time.monotonic() - started:.0f} s"),
    ):
        figures.add_row(name, value)
    console.print(figures)
    if faults:
        shown = "; ".join(faults[:FAULTS_SHOWN])
        raise Unexpected(f"{len(faults)} of {len(tally.requests)} requests: {shown}")


def _requests(names: tuple[str, ...], given: argparse.Namespace) -> list[workload.Request]:
    if given.requests:
        return workload.shuffled(names, given.requests, given.clients)
    return workload.of_trace(names, given.seconds, given.clients)


def _loaded(view: NodeView) -> int:
    return sum(one.state in LOADED for one in view.workloads)


def _settled(view: View | None) -> bool:
    return view is not None and not view["counts"]["held"] and not view["counts"]["running"]


def _of(ordered: list[float]) -> list[float]:
    last = len(ordered) - 1
    return [ordered[round(last * share)] for share in (0.5, 0.95, 0.99)] if ordered else [0.0] * 3


def _percentiles(three: list[float]) -> str:
    return ", ".join(
        f"{name} {one:.2f} s" for name, one in zip(("p50", "p95", "p99"), three, strict=True)
    )


def _profiles(given: argparse.Namespace) -> dict[str, object]:
    """A seat for each model, and one over."""
    profile = {"name": "gpu-1x-seat", "resource": "kyb.ai/gpu-1x-seat", "groupSize": 1}
    profile |= {"seatsPerGroup": given.models + 1, "activePerGroup": given.together}
    return {"profiles": [profile]}


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo-multiplex", description=__doc__)
    parser.add_argument("--work", type=Path, help="folder of the cluster; a short path")
    parser.add_argument("--real", action="store_true", help="a real node, where one can be")
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--vram", default="40Gi", help="of each model")
    parser.add_argument("--together", type=int, default=2, help="models that may be active at once")
    parser.add_argument("--seconds", type=float, default=50.0, help="the trace is played in")
    parser.add_argument("--requests", type=int, default=0, help="shuffled ones, not the trace")
    parser.add_argument("--switches", type=int, default=0, help="there have to be so many")
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--ahead", type=int, default=1, help="questions before the first answer")
    parser.add_argument("--turn", type=float, default=1.0, help="seconds a model keeps its GPU")
    return parser


if __name__ == "__main__":
    sys.exit(main())
