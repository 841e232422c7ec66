"""`kyb gc --dry-run`: which checkpoints stay, which go and when, and why.

The controller judges by `kyb.retention`, says so in each GpuCheckpoint's condition Kept, and
collects; this prints its plan. Rule: nothing is deleted here.
"""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kyb import faults, reach
from kyb.show import wide
from kybernate.api.checkpoints import Kept, read_checkpoint, read_kept
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime.clock import SystemClock

console = Console(highlight=False)
GIB = 1 << 30


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan. The controller carries it out.")
    ] = False,
    kubeconfig: reach.Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Only this one.")
    ] = None,
) -> None:
    """Print which checkpoints are collected, which stay, and why."""
    if not dry_run:
        faults.fail("the controller collects by itself; `kyb gc --dry-run` prints what it will do")
    found = [
        (read_checkpoint(obj), read_kept(obj))
        for obj in reach.kube(kubeconfig).list(GPUCHECKPOINTS, namespace)
    ]
    if not found:
        console.print("no checkpoints")
        return
    found.sort(key=lambda one: (one[0].namespace, one[0].workload, one[0].sealed_at))
    table = Table(box=None, pad_edge=False)
    for column in ("NAMESPACE", "NAME", "WORKLOAD", "SIZE", "PLAN", "SINCE", "WHY"):
        table.add_column(column)
    now = SystemClock().now()
    for checkpoint, kept in found:
        table.add_row(*_row(checkpoint, kept, now))
    wide(table)
    going = [one.size for one, kept in found if kept is not None and not kept.holds]
    console.print(
        f"{len(going)} of {len(found)} go when their grace time is over: "
        f"{sum(going) / GIB:.1f} GiB for each of their copies",
        soft_wrap=True,
    )


def _row(one: Checkpoint, kept: Kept | None, now: float) -> list[str]:
    first = [one.namespace, one.name, one.workload, f"{one.size / GIB:.1f} GiB"]
    if kept is None:
        return [*first, "keep", "", "not judged yet"]
    why = f"{kept.reason}: {kept.message}" if kept.message else kept.reason
    return [*first, "keep" if kept.holds else "collect", f"{max(0.0, now - kept.since):.0f} s", why]
