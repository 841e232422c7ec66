"""`kyb gc`: what is collected, what stays and when the rest goes, and why; of a store it does it.

Checkpoints are the controller's: it judges by `kyb.retention`, says so in each GpuCheckpoint's
condition Kept, and collects; `--dry-run` prints its plan. What a store holds and no manifest names
(`--in`) goes here. Rule: with `--dry-run` nothing is changed anywhere.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kyb import faults, reach
from kyb.checkpoints import places
from kyb.show import wide
from kybernate.api.checkpoints import Kept, read_checkpoint, read_kept
from kybernate.api.duration import format_seconds, parse_seconds
from kybernate.api.quantity import readable_bytes
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.ladder.collecting import Collecting, Found
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime.clock import SystemClock

console = Console(highlight=False)
GIB = 1 << 30


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan alone.")] = False,
    store: Annotated[
        str | None, typer.Option("--in", help="This store: a folder or s3://BUCKET/PREFIX.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="With --in: folder with trusted.pem, or that file.")
    ] = None,
    grace: Annotated[
        str, typer.Option(help="With --in: how long a pack stays that no manifest names.")
    ] = "24h",
    kubeconfig: reach.Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Only this one.")
    ] = None,
) -> None:
    """Print which checkpoints are collected, which stay, and why; or collect a store's packs."""
    if store is not None:
        _of_store(store, keys, grace, dry_run)
        return
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


def _of_store(place: str, keys: Path | None, grace: str, dry_run: bool) -> None:
    if keys is None:
        faults.fail("--keys: missing (expected the folder with trusted.pem: who signs manifests)")
    try:
        seconds = parse_seconds(grace)
    except ValueError as expected:
        faults.fail(f"--grace {grace!r}: expected {expected}")
    collecting = Collecting(places.store(place), places.trusted(keys), SystemClock(), seconds)
    table = Table(box=None, pad_edge=False)
    for column in ("DOMAIN", "NAMED", "WAITING", "NEXT IN", "GOING" if dry_run else "GONE", "SIZE"):
        table.add_column(column)
    alone: list[Found] = []
    for domain in collecting.domains():
        if dry_run:
            found = collecting.plan(domain)
            gone = found.sweep.going
        else:
            done = collecting.collect(domain)
            found, gone = done.found, done.gone
        table.add_row(*_domain(found, gone))
        alone += [found] if found.alone else []
    if not table.row_count:
        console.print(f"{place}: no packs")
        return
    wide(table)
    for found in alone:
        faults.say(f"{found.domain} is left alone: {found.alone}")
    if alone:
        raise typer.Exit(1)


def _domain(found: Found, gone: tuple[str, ...]) -> list[str]:
    if found.alone:
        return [escape(found.domain), "?", str(len(found.view.packs)), "", "0", "0 B"]
    waiting = found.sweep.waiting
    held = len(found.view.packs) - len(waiting) - len(found.sweep.going)
    soon = format_seconds(float(round(min(waiting.values())))) if waiting else ""
    size = readable_bytes(found.size(gone))
    return [escape(found.domain), str(held), str(len(waiting)), soon, str(len(gone)), size]
