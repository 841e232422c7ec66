"""
`kyb registry`: which checkpoints exist, where, how good, what happened to them; and filling a
registry that was lost.

The way there: Secret kyb-client-tls says who may ask; the address is --registry, else KYB_REGISTRY,
else the Service, which is reached from within the cluster only.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kyb import faults, reach
from kyb.show import wide
from kybernate.api import timestamps
from kybernate.clients import reaching
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.kube import Kube
from kybernate.clients.registry import Registry
from kybernate.clients.resources import GPUNODES
from kybernate.model.artifact import Entry, Inventory, Place, Row, Wanted
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from kybernate.runtime.clock import SystemClock

app = typer.Typer(no_args_is_help=True, help="The registry: which checkpoints exist, and where.")
console = Console(highlight=False)

GIB = 1 << 30
AT_ONCE = 8  # agents that are asked side by side
At = Annotated[
    str,
    typer.Option(
        "--registry", envvar="KYB_REGISTRY",
        help="HOST:PORT; from outside that of kubectl -n kyb-system port-forward svc/kyb-registry",
    ),
]  # fmt: skip
SERVICE = f"{reaching.REGISTRY}:443"
AllNamespaces = Annotated[
    str, typer.Option("-n", "--namespace", help="Only this one; else all of them.")
]


@app.command("list")
def list_(  # noqa: PLR0913 - one for each option
    kubeconfig: reach.Kubeconfig = None,
    registry: At = SERVICE,
    namespace: AllNamespaces = "",
    workload: Annotated[str, typer.Option(help="Only of this one: statefulset.llama.0.")] = "",
    node: Annotated[str | None, typer.Option(help="Only those with a copy there.")] = None,
    tier: Annotated[Tier | None, typer.Option(help="Only those with a copy in it.")] = None,
    gold: Annotated[bool | None, typer.Option("--gold/--not-gold", help="Only these.")] = None,
) -> None:
    """List the checkpoints there are: where their copies are, and how good those are."""
    wanted = Wanted(
        namespace=namespace,
        workload=workload,
        node=None if node is None else NodeName(node),
        tier=tier,
        gold=gold,
    )
    with _registry(kubeconfig, registry) as asked:
        rows = list(asked.all(wanted))
    if not rows:
        console.print("no checkpoints")
        return
    wide(_table(rows))


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="NAMESPACE/NAME, or a NAME of the namespace.")],
    kubeconfig: reach.Kubeconfig = None,
    registry: At = SERVICE,
    namespace: reach.Namespace = None,
) -> None:
    """Show a checkpoint: what it is, what it was made in, and every copy of it."""
    kube = reach.kube(kubeconfig)
    key = reach.key(kube, name, namespace)
    with reaching.registry_at(kube, registry) as asked:
        rows = asked.get(key.namespace, key.name)
    if not rows:
        faults.fail(
            f"no copy of {key} is known: `kyb registry history {key}` says what became of it"
        )
    for row in rows:
        for label, value in _described(row):
            console.print(f"{label:<12} {value}", soft_wrap=True, markup=False)


@app.command()
def history(
    name: Annotated[str, typer.Argument(help="NAMESPACE/NAME, or NAME; none: of all.")] = "",
    kubeconfig: reach.Kubeconfig = None,
    registry: At = SERVICE,
    namespace: reach.Namespace = None,
    node: Annotated[str | None, typer.Option(help="Only what happened there.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="And what happens next.")] = False,
) -> None:
    """Tell what happened to checkpoints, oldest first."""
    kube = reach.kube(kubeconfig)
    space, only = namespace or "", ""
    if name:
        key = reach.key(kube, name, namespace)
        space, only = key.namespace, key.name
    if follow and (only or node):
        faults.fail("--follow tells of all checkpoints, or of those of a namespace (-n)")
    with reaching.registry_at(kube, registry) as asked:
        where = None if node is None else NodeName(node)
        told = asked.watch(space) if follow else asked.history(space, only, where)
        for entry in told:
            console.print(_line(entry), soft_wrap=True, markup=False)


@app.command()
def rebuild(
    kubeconfig: reach.Kubeconfig = None,
    registry: At = SERVICE,
    forget: Annotated[
        list[str] | None, typer.Option(help="Copies of this node are gone with it. Repeatable.")
    ] = None,
) -> None:
    """Have the registry know what is on the nodes: asks every agent for the copies it has.

    Rows come back as they were; what happened before, and when copies were compared, does not.
    Safe at any time: what agents tell meanwhile stands.
    """
    kube = reach.kube(kubeconfig)
    nodes = sorted(obj["metadata"]["name"] for obj in kube.list(GPUNODES))
    with reaching.registry_at(kube, registry) as told:
        away = 0
        for scanned in _scanned(kube, nodes):
            away += scanned.fault != ""
            console.print(_taken(told, scanned), soft_wrap=True, markup=False)
        for node in forget or ():
            if node in nodes:
                faults.fail(f"--forget {node}: it has a GpuNode (expected a node that is gone)")
            console.print(_taken(told, _gone(node)), soft_wrap=True, markup=False)
        left = {place.node for row in told.all(Wanted()) for place in row.copies}
    for node in sorted(left - set(nodes) - {NodeName("")}):
        console.print(f"{node}: no GpuNode; its copies are still listed (--forget {node})")
    if away:
        faults.fail(f"{away} of {len(nodes)} nodes did not answer: their rows are as before")


@dataclass(frozen=True, slots=True)
class _Scanned:
    """What an agent told, or why not."""

    node: str
    inventories: tuple[Inventory, ...] = ()
    fault: str = ""


def _gone(node: str) -> _Scanned:
    """As if it had told that nothing is left."""
    place = Place(node=NodeName(node), tier=Tier.NVME)
    return _Scanned(node, (Inventory(place=place, as_of=SystemClock().now(), artifacts=()),))


def _scanned(kube: Kube, nodes: list[str]) -> Iterator[_Scanned]:
    def scan(node: str) -> _Scanned:
        try:
            with reaching.copies_of(kube, node) as copies:
                return _Scanned(node, copies.inventories())
        except (AgentAway, AgentRefused, ValueError) as fault:
            return _Scanned(node, fault=str(fault))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield from threads.map(scan, nodes)


def _taken(registry: Registry, scanned: _Scanned) -> str:
    """Raises RegistryAway, RegistryRefused."""
    if scanned.fault:
        return f"{scanned.node}: not asked: {scanned.fault}"
    parts = []
    for inventory in scanned.inventories:
        taken = registry.take_inventory(inventory)
        count, tier = len(inventory.artifacts), inventory.place.tier
        parts.append(f"{count} in {tier}, {taken.found} new, {taken.missing} gone")
    return f"{scanned.node}: {'; '.join(parts)}"


def _registry(kubeconfig: reach.Kubeconfig, address: str) -> Registry:
    return reaching.registry_at(reach.kube(kubeconfig), address)


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("NAMESPACE", "NAME", "WORKLOAD", "SIZE", "SEALED", "GOLD", "COPIES", "WHY"):
        table.add_column(column)
    for row in rows:
        one = row.artifact
        flaws = {f"{place.node}: {check.flaw}" for place, check in row.checks.items() if check.flaw}
        table.add_row(
            one.identity.namespace,
            one.identity.name,
            one.workload,
            f"{one.size / GIB:.1f} GiB",
            timestamps.rfc3339(one.sealed_at),
            "gold" if one.gold else "",
            ", ".join(map(_where, row.copies)),
            "; ".join(sorted(flaws)),
        )
    return table


def _described(row: Row) -> Iterator[tuple[str, str]]:
    one = row.artifact
    yield "checkpoint", f"{one.identity.namespace}/{one.identity.name}"
    yield "workload", f"{one.workload} (pod {one.pod}, sealed on {one.node})"
    yield "sealed", timestamps.rfc3339(one.sealed_at)
    yield "size", f"{one.size} bytes, format {one.format}{', gold' if one.gold else ''}"
    yield "signature", one.identity.signature
    yield "fingerprint", one.fingerprint
    for name, value in sorted(one.made_in.items()):
        yield f"  {name}", value or "unknown"
    for place in row.copies:
        check = row.checks.get(place)
        if check is None:
            yield "copy", f"{_where(place)}, not compared since it came"
        else:
            found = check.flaw or "every byte as sealed"
            yield "copy", f"{_where(place)}, {timestamps.rfc3339(check.at)}: {found}"


def _line(entry: Entry) -> str:
    one = entry.occurrence
    name = f"{one.identity.namespace}/{one.identity.name}"
    detail = f": {one.detail}" if one.detail else ""
    return f"{timestamps.rfc3339(one.at)}  {one.kind:<8} {name} on {_where(one.place)}{detail}"


def _where(place: Place) -> str:
    return f"{place.node} ({place.tier})" if place.node else str(place.tier)
