"""`kyb checkpoint list`: what there is, what each added, how long its workload stood still."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from kyb import reach
from kyb.overview import span
from kyb.show import console, wide
from kybernate.api import checkpoints as codec
from kybernate.api.errors import Malformed
from kybernate.clients import resources
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime.clock import SystemClock

COLUMNS = (
    "NAMESPACE", "NAME", "WORKLOAD", "AGE", "SIZE", "ADDED", "PAUSE", "COPIES", "KEPT",
)  # fmt: skip


def list_(
    workload: Annotated[
        str | None, typer.Argument(help="Only of this one, as the column WORKLOAD has it.")
    ] = None,
    kubeconfig: reach.Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Only this one.")
    ] = None,
) -> None:
    """List checkpoints, the oldest first: size, bytes that were new, pause, copies."""
    found = reach.kube(kubeconfig).list(resources.GPUCHECKPOINTS, namespace)
    rows = rows_of(found, SystemClock().now(), workload)
    if not rows:
        console.print("no checkpoints")
        return
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    wide(table)


def rows_of(
    objects: list[dict[str, Any]], now: float, workload: str | None = None
) -> list[tuple[str, ...]]:
    """One for each, by workload and age. `now` is the wall clock."""
    read = [(obj, _read(obj)) for obj in objects]
    found = [(obj, one) for obj, one in read if one is not None]
    found.sort(key=lambda pair: (pair[1].namespace, pair[1].workload, pair[1].sealed_at))
    return [_row(obj, one, now) for obj, one in found if workload in (None, one.workload)]


def _read(obj: Mapping[str, Any]) -> Checkpoint | None:
    try:
        return codec.read_checkpoint(obj)
    except Malformed:
        return None


def _row(obj: Mapping[str, Any], one: Checkpoint, now: float) -> tuple[str, ...]:
    status = obj.get("status") or {}
    kept = codec.read_kept(obj)
    copies = [f"{node} ({tier})" for node, tier in sorted(one.copies.items())]
    stored = ["object storage"] if one.in_object_storage else []
    return (
        one.namespace,
        one.name,
        one.workload,
        span(now - one.sealed_at) if one.sealed_at else "-",
        codec.size_text(one.size) if one.size else "-",
        str(status.get("added") or "-"),
        str((status.get("pause") or {}).get("text") or "-"),
        ", ".join([*copies, *stored]) or "-",
        kept.reason if kept is not None else "-",
    )
