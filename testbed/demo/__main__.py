"""`python -m testbed.demo`: start, play once, show what kubectl shows, stop. Exit code 0: all told.

On a real node (kubelet, containerd, runc) where this machine can run one, else on a light node;
`--light` asks for that. `--work DIR` keeps the logs there; without it they go with a temporary
folder, unless something failed.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import urllib3
from rich.console import Console
from rich.table import Table

from kybernate.clients.agents import Agent, AgentAway, AgentRefused, Outcome
from testbed import assets
from testbed.demo import acts
from testbed.demo.asking import Client
from testbed.demo.screen import screen
from testbed.demo.stage import NODE, Stage, Unexpected, pod_of, quiet_state
from testbed.kubectl import KubectlFailed
from testbed.node.commands import CommandFailed
from testbed.node.realnode import NodeUnavailable
from testbed.processes import ProcessFailed
from testbed.stack import NodeSpec, Stack, realnodes

FAULTS = (
    Unexpected, ProcessFailed, KubectlFailed, AgentAway, AgentRefused, CommandFailed,
    NodeUnavailable, assets.BuildFailed, assets.GoUnavailable, OSError,
    urllib3.exceptions.HTTPError,
)  # fmt: skip
EVENTS_SHOWN = 40
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--work", type=Path, help="folder of the cluster; a short path")
    parser.add_argument("--light", action="store_true", help="no real node, also where one can be")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    work = given.work
    folder = work or Path(tempfile.mkdtemp(prefix="kyb-demo-"))
    try:
        play(folder, given.light)
    except FAULTS as fault:
        console.print(f"\ndemo: {fault}", style="red", markup=False)
        console.print(f"logs are in {folder}")
        return 1
    except KeyboardInterrupt:
        console.print(f"\ndemo: interrupted; all it started has ended. Logs are in {folder}")
        return 130
    if work is None:
        shutil.rmtree(folder, ignore_errors=True)
    console.print("\ndemo: ok")
    return 0


def play(folder: Path, light: bool) -> None:
    """The whole evening. Raises one of FAULTS."""
    problem = "--light asks for it" if light else realnodes.why_not()
    started = time.monotonic()  # what a real node runs is built by now
    console.print("== A real control plane, our processes, and a node with one simulated GPU")
    if problem:
        console.print(f"   the node is a light one, pods are local processes: {problem}")
    else:
        console.print("   the node is a real one: kubelet, containerd, runc, real containers")
    spec = NodeSpec(name=NODE, real=problem is None)
    with Stack.start(folder, [spec], partial(progress, started)) as stack:
        agent = Agent.on_node(stack.nodes[NODE].folder.agent_socket)
        client = Client(agent, partial(pod_of, stack), time.monotonic)
        with screen(partial(quiet_state, agent)) as shown:
            stage = Stage(stack, shown, agent, client)
            for act in acts.ACTS:
                act(stage)
        show(stack)
        switches(client)
        console.print(f"\nplayed in {time.monotonic() - started:.0f} s. Next: {NEXT}")
        agent.close()


NEXT = """`.venv/bin/kyb up` starts such a cluster and keeps it;
  kubectl apply -f manifests/examples/models-on-a-light-node.yaml   two models and a trainer
  .venv/bin/kyb ps                                    who holds what, and why others wait
  .venv/bin/kyb resume POD                            bring one in, and see what it takes
  kubectl edit configmap kyb-policies -n kyb-system   other policies, live
`.venv/bin/kyb down` ends it; docs/tutorials/first-steps.md tells more."""


def progress(started: float, text: str) -> None:
    """A line with the time since the start."""
    console.print(f"   {time.monotonic() - started:5.1f} s  {text}")


def show(stack: Stack) -> None:
    """What anybody would see in this cluster."""
    console.print("\n$ kubectl get gpunodes,gpuworkloads", style="bold")
    console.print(stack.plane.kubectl("get", "gpunodes,gpuworkloads"), markup=False)
    by_time = ("get", "events", "--sort-by=.metadata.creationTimestamp")
    console.print(f"$ kubectl {' '.join(by_time)} | tail -n {EVENTS_SHOWN}", style="bold")
    lines = stack.plane.kubectl(*by_time).splitlines()
    console.print("\n".join(lines[-EVENTS_SHOWN:]), markup=False)


def switches(client: Client) -> None:
    """The measured switches: where the time went, with the rest that no phase accounts for.

    Phases of the park before it and of the resume are added up by name.
    """
    models = [answer.outcome for answer in client.answers if answer.model in acts.MODELS]
    moved = [outcome for outcome in models if moved_in(outcome)]
    if not moved:
        return
    names = list(dict.fromkeys(p.name for outcome in moved for p in outcome.phases))
    table = Table(title=f"{len(moved)} activations that moved 40 GiB in, seconds")
    for column in ("phase", "median", "longest"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name in names:
        spent = [sum(p.seconds for p in one.phases if p.name == name) for one in moved]
        table.add_row(name, f"{median(spent):.3f}", f"{max(spent):.3f}")
    total = [one.seconds for one in moved]
    table.add_row("request to active", f"{median(total):.3f}", f"{max(total):.3f}")
    console.print(table)


def moved_in(outcome: Outcome) -> bool:
    """Whether contents came back from RAM."""
    return any(phase.name == "copy in" for phase in outcome.phases)


if __name__ == "__main__":
    sys.exit(main())
