"""`kyb resume` and `kyb park`: ask the agent of a workload's node for a switch, and watch it.

The way there: GpuWorkload (which node) → GpuNode (where its agent is) → Secret kyb-client-tls (who
may call agents). Whoever may read that Secret may ask for turns.
"""

from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from kyb import faults, reach
from kybernate.clients import agents, reaching, resources
from kybernate.clients.agents import Agent, AgentAway, Outcome
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.model.ids import WorkloadKey

console = Console(highlight=False, soft_wrap=True)

NOTICEABLE_S = 0.01

Within = Annotated[float, typer.Option(help="Seconds to wait; it stays wanted afterwards.")]
Ask = Callable[[Agent, WorkloadKey], Iterator[agents.Progress]]


def resume(
    name: reach.Workload,
    kubeconfig: reach.Kubeconfig = None,
    namespace: reach.Namespace = None,
    within: Within = 300.0,
) -> None:
    """Bring a parked workload into VRAM; waits for its turn, and says what it took."""
    kube = reach.kube(kubeconfig)
    _switch(
        kube, reach.key(kube, name, namespace), lambda agent, key: agent.activating(key, within)
    )


def park(
    name: reach.Workload,
    kubeconfig: reach.Kubeconfig = None,
    namespace: reach.Namespace = None,
    within: Within = 300.0,
) -> None:
    """Move a workload's contents out of VRAM until somebody asks for it."""
    kube = reach.kube(kubeconfig)
    _switch(kube, reach.key(kube, name, namespace), lambda agent, key: agent.parking(key, within))


def _switch(kube: Kube, key: WorkloadKey, ask: Ask) -> None:
    """Raises AgentAway, AgentRefused, ApiError."""
    last: list[str] = []
    with _agent_of(kube, key) as agent:
        try:
            outcome = _watched(key, ask(agent, key), last)
        except AgentAway as away:
            if not str(away).startswith("DEADLINE_EXCEEDED") or not last:
                raise
            faults.fail(f"{key}: not within the time given (--within); {last[-1]}")
    if not outcome.ok:
        faults.fail(f"{key}: {outcome.message or outcome.reason}")
    parts = [f"{p.name} {p.seconds:.2f}" for p in outcome.phases if p.seconds >= NOTICEABLE_S]
    console.print(f"{key}: {outcome.seconds:.2f} s" + (f" = {' + '.join(parts)}" if parts else ""))


def _agent_of(kube: Kube, key: WorkloadKey) -> Agent:
    """Raises AgentAway, ApiError; ends the command where the workload has no node."""
    try:
        workload = kube.get(resources.GPUWORKLOADS, key.name, key.namespace)
    except NotFound:
        faults.fail(f"no workload {key}: `kyb ps` lists them")
    node = workload.get("status", {}).get("node")
    if not node:
        faults.fail(f"{key} has no seat on a node yet")
    return reaching.agent_of(kube, node)


def _watched(key: WorkloadKey, steps: Iterator[agents.Progress], told: list[str]) -> Outcome:
    """Draw each step and put it into `told`; the outcome. Raises AgentAway, AgentRefused."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True))
    bars = Progress(
        *columns, TransferSpeedColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bars as drawn:
        task = drawn.add_task(str(key), total=None)
        for step in steps:
            if step.outcome is not None:
                return step.outcome
            text = f"{step.state}: {step.message}" if step.message else str(step.state)
            told.append(text)
            drawn.update(
                task, description=f"{key} {text}", total=step.total or None, completed=step.done
            )
    raise AgentAway("the agent ended its answer without an outcome")
