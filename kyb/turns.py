"""`kyb resume` and `kyb park`: ask the agent of a workload's node for a switch, and watch it.

The way there: GpuWorkload (which node) → GpuNode (where its agent is) → Secret kyb-client-tls (who
may call agents). Whoever may read that Secret may ask for turns.
"""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from kyb import faults, reach
from kybernate.api import names
from kybernate.clients import agents, resources
from kybernate.clients.agents import Agent, AgentAway, Outcome
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.model.ids import WorkloadKey

console = Console(highlight=False, soft_wrap=True)

SERVER = f"kyb-nodeagent.{names.SYSTEM_NAMESPACE}.svc"
NOTICEABLE_S = 0.01

Name = Annotated[str, typer.Argument(help="The workload, named as its pod, or NAMESPACE/NAME.")]
Within = Annotated[float, typer.Option(help="Seconds to wait; it stays wanted afterwards.")]
Ask = Callable[[Agent, WorkloadKey], Iterator[agents.Progress]]


def resume(
    name: Name,
    kubeconfig: reach.Kubeconfig = None,
    namespace: reach.Namespace = "default",
    within: Within = 300.0,
) -> None:
    """Bring a parked workload into VRAM; waits for its turn, and says what it took."""
    _switch(_key(name, namespace), kubeconfig, lambda agent, key: agent.activating(key, within))


def park(
    name: Name,
    kubeconfig: reach.Kubeconfig = None,
    namespace: reach.Namespace = "default",
    within: Within = 300.0,
) -> None:
    """Move a workload's contents out of VRAM until somebody asks for it."""
    _switch(_key(name, namespace), kubeconfig, lambda agent, key: agent.parking(key, within))


def _key(name: str, namespace: str) -> WorkloadKey:
    """Of NAME or NAMESPACE/NAME. Ends the command where it is neither."""
    if not re.fullmatch(r"[^/\s]+(/[^/\s]+)?", name):
        faults.fail(f"{name!r} is no name of a workload: expected NAME or NAMESPACE/NAME")
    return WorkloadKey.parse(name) if "/" in name else WorkloadKey(namespace, name)


def _switch(key: WorkloadKey, kubeconfig: reach.Kubeconfig, ask: Ask) -> None:
    """Raises AgentAway, AgentRefused, ApiError."""
    last: list[str] = []
    with _agent_of(reach.kube(kubeconfig), key) as agent:
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
    """Raises ApiError; ends the command where the workload has no node or the agent no address."""
    try:
        workload = kube.get(resources.GPUWORKLOADS, key.name, key.namespace)
    except NotFound:
        faults.fail(f"no workload {key}: `kyb ps` lists them")
    node = workload.get("status", {}).get("node")
    if not node:
        faults.fail(f"{key} has no seat on a node yet")
    endpoint = kube.get(resources.GPUNODES, node).get("status", {}).get("endpoint")
    if not endpoint:
        faults.fail(f"the agent of {node} does not say where it is reached (--advertise)")
    return Agent.in_cluster(endpoint, _credentials(kube), SERVER)


def _credentials(kube: Kube) -> grpc.ChannelCredentials:
    secret = kube.get(resources.SECRETS, "kyb-client-tls", names.SYSTEM_NAMESPACE)["data"]
    authority, key, certificate = (
        base64.b64decode(secret[part]) for part in ("ca.crt", "tls.key", "tls.crt")
    )
    return grpc.ssl_channel_credentials(authority, key, certificate)


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
