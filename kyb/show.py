"""`kyb ps` and `kyb topology`: who holds what, and which GPUs stand near each other."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from kyb import faults, overview, reach
from kybernate.api import gpuworkloads, names
from kybernate.api.errors import Malformed
from kybernate.api.profiles import load_profiles
from kybernate.clients import resources
from kybernate.clients.gpus import InventoryAway
from kybernate.clients.gpus.choosing import InventorySource, open_inventory
from kybernate.decisions import grouping
from kybernate.model.gpu import Gpu

console = Console(highlight=False)
GIB = 1 << 30
WIDEST = 10_000
STYLES = {"Active": "bold green", "Parked": "cyan", "Waiting": "yellow", "Quarantined": "bold red"}


def ps(
    kubeconfig: reach.Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Only this one.")
    ] = None,
) -> None:
    """List the workloads: state, seat, tier, the last switch, and why they wait."""
    found = reach.kube(kubeconfig).list(resources.GPUWORKLOADS, namespace)
    table = Table(box=None, pad_edge=False)
    for column in ("NAMESPACE", "NAME", "STATE", "NODE", "SEAT", "TIER", "VRAM", "SWITCH", "WHY"):
        table.add_column(column)
    for obj in sorted(found, key=_order):
        table.add_row(*_row(obj))
    if not found:
        console.print(f"no workloads that ask for a {names.GROUP} seat")
        return
    wide(table)


def wide(table: Table) -> None:
    """Print it as kubectl does: rows as long as they are, also in a pipe. Names are there to be
    copied, and what a narrow terminal would leave out is the reason."""
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    Console(highlight=False, width=max(console.width, needed)).print(table)


def _order(obj: dict[str, Any]) -> tuple[str, str]:
    status = obj.get("status") or {}
    return str(status.get("node", "~")), str(status.get("seat", "~"))


def _row(obj: dict[str, Any]) -> list[str]:
    metadata = obj["metadata"]
    try:
        spec, status = gpuworkloads.read_spec(obj), gpuworkloads.read_status(obj)
    except Malformed as fault:
        return [metadata["namespace"], metadata["name"], "?", "", "", "", "", "", str(fault)]
    vram = f"{spec.vram / GIB:.0f} GiB" if spec.vram else "group"
    first = [metadata["namespace"], metadata["name"]]
    if status is None:
        return [*first, "Pending", "", "", "", vram, "", overview.last_said(obj)]
    style = STYLES.get(status.state, "")
    state = f"[{style}]{status.state}[/]" if style else str(status.state)
    switch = f"{status.last_switch_seconds:.2f} s" if status.last_switch_seconds else ""
    where = [status.node, status.seat, status.tier or ""]
    return [*first, state, *where, vram, switch, status.why]


def topology(
    profiles: Annotated[Path, typer.Option(help="The node's profile file.")],
    inventory: Annotated[
        str, typer.Option(help="nvml, listed (the file's own `gpus`), or a simulated GPU's socket.")
    ] = "nvml",
) -> None:
    """Show this node's GPUs, their links, and the groups the profile file makes of them.

    Run it on the node before a profile file is rolled out: every fault of the file is listed.
    """
    text = _text(profiles)
    try:
        gpus = _gpus(inventory, text)
        file = load_profiles(text)
        groups = grouping.groups_of(file.profiles, gpus, file.listed)
    except Malformed as malformed:
        for fault in malformed.faults:
            faults.say(f"{profiles}: {fault}")
        raise typer.Exit(2) from None
    except InventoryAway as away:
        faults.fail(f"inventory {inventory}: {away}")
    console.print(grouping.topology_table(gpus, groups))
    absent = [(group, missing) for group in groups if (missing := grouping.missing(group, gpus))]
    for group, missing in absent:
        listed = ", ".join(map(str, missing))
        faults.say(f"{profiles}: group {group.name}: GPU {listed} (expected GPUs of this node)")
    if absent:
        raise typer.Exit(2)


def _text(profiles: Path) -> str:
    try:
        return profiles.read_text(encoding="utf-8")
    except OSError as problem:
        faults.fail(f"{profiles}: {problem.strerror}")
    except UnicodeDecodeError:
        faults.fail(f"{profiles}: no text (expected YAML in UTF-8)")


def _gpus(inventory: str, profiles: str) -> tuple[Gpu, ...]:
    """Raises InventoryAway, Malformed."""
    named = inventory in set(InventorySource)
    source = InventorySource(inventory) if named else InventorySource.SIMULATED
    listed = load_profiles(profiles).gpus
    return open_inventory(source, listed, None if named else Path(inventory)).gpus()
