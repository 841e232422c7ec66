"""`kyb gc`: what is collected, what stays and when the rest goes, and why; of a store it does it.

Checkpoints are the controller's: it judges by `kyb.retention`, says so in each GpuCheckpoint's
condition Kept, and collects; `--dry-run` prints its plan. What a store holds and no manifest names
(`--in`) goes here, or by an agent. Rule: with `--dry-run` nothing is changed anywhere.
"""

from collections.abc import Iterator
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
from kybernate.clients import reaching
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.copies import Collected
from kybernate.clients.kube import Kube
from kybernate.clients.resources import GPUCHECKPOINTS, GPUNODES
from kybernate.ladder.collecting import Collecting
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime.clock import SystemClock

console = Console(highlight=False)
GIB = 1 << 30
CLUSTER = "cluster"  # for `--in`: the store that agents are given, by an agent


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan alone.")] = False,
    store: Annotated[
        str | None,
        typer.Option("--in", help=f"This store: a folder, s3://BUCKET/PREFIX, or {CLUSTER}."),
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
        kube = reach.kube(kubeconfig) if store == CLUSTER else None
        _of_store(store, keys, grace, dry_run, kube)
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


def _of_store(place: str, keys: Path | None, grace: str, dry_run: bool, kube: Kube | None) -> None:
    """Of the store at this place, or of the one that agents are given."""
    try:
        seconds = parse_seconds(grace)
    except ValueError as expected:
        faults.fail(f"--grace {grace!r}: expected {expected}")
    table = Table(box=None, pad_edge=False)
    for column in ("DOMAIN", "NAMED", "WAITING", "NEXT IN", "GOING" if dry_run else "GONE", "SIZE"):
        table.add_column(column)
    alone: list[Collected] = []
    each = _here(place, keys, seconds, dry_run) if kube is None else _there(kube, seconds, dry_run)
    for one in each:
        table.add_row(*_domain(one))
        alone += [one] if one.alone else []
    if not table.row_count:
        console.print(f"{place}: no packs")
        return
    wide(table)
    for one in alone:
        faults.say(f"{one.domain} is left alone: {one.alone}")
    if alone:
        raise typer.Exit(1)


def _here(place: str, keys: Path | None, grace: float, dry_run: bool) -> Iterator[Collected]:
    if keys is None:
        faults.fail("--keys: missing (expected the folder with trusted.pem: who signs manifests)")
    collecting = Collecting(places.store(place), places.trusted(keys), SystemClock(), grace)
    done = collecting.planned if dry_run else collecting.collect
    yield from (done(domain).told for domain in collecting.domains())


def _there(kube: Kube, grace: float, dry_run: bool) -> Iterator[Collected]:
    """By the first agent that can."""
    said = []
    for node in sorted(obj["metadata"]["name"] for obj in kube.list(GPUNODES)):
        try:
            with reaching.copies_of(kube, node) as copies:
                yield from copies.collect(grace, dry_run=dry_run)
        except (AgentAway, AgentRefused) as no:
            said.append(f"{node}: {no}")
        else:
            return
    faults.fail(f"no agent could: {'; '.join(said) or 'there is none'}")


def _domain(one: Collected) -> list[str]:
    if one.alone:
        return [escape(one.domain), "?", str(one.waiting), "", "0", "0 B"]
    soon = format_seconds(float(round(one.next_seconds))) if one.waiting else ""
    counts = [str(one.named), str(one.waiting), soon, str(one.gone)]
    return [escape(one.domain), *counts, readable_bytes(one.size)]
