"""`kyb doctor`: the command line. Exit status 0: fit; 1: something has to be mended."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kyb import faults, reach
from kyb.doctor import checks, node, seen
from kyb.doctor.findings import Finding, Grade, fit
from kyb.doctor.host import Host
from kyb.doctor.node import Look

console = Console(highlight=False)
STYLES = {
    Grade.OK: "green",
    Grade.WARNING: "yellow",
    Grade.FAULT: "bold red",
    Grade.UNKNOWN: "magenta",
}
UNMEASURED = {"bus", "disk"}

Reports = Mapping[str, Sequence[Finding]]
_LOOK = Look()


def doctor(  # noqa: PLR0913 - one for each option
    node_local: Annotated[
        bool, typer.Option("--node-local", help="Look at this machine instead; as root.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    quick: Annotated[bool, typer.Option(help="Measure nothing: no bus, no disk.")] = False,
    disk: Annotated[
        Path, typer.Option(help="With --node-local: where the agent keeps its state.")
    ] = Path(_LOOK.disk),
    pool: Annotated[
        Path, typer.Option(help="With --node-local: the agent's pool in host memory.")
    ] = Path(_LOOK.pool),
    store: Annotated[
        str,
        typer.Option(
            envvar="KYB_CHECKPOINT_STORE",
            help="With --node-local: the agents' object store, as --checkpoint-store has it.",
        ),
    ] = "",
    wrapping: Annotated[
        Path | None,
        typer.Option(
            envvar="KYB_CHECKPOINT_WRAPPING_KEYS",
            help="With --node-local: the folder with the store's wrapping.key.",
        ),
    ] = None,
    kubeconfig: reach.Kubeconfig = None,
) -> None:
    """Check nodes: what is there, what Kybernate wants, and how to mend the difference.

    Without --node-local: every managed node, as far as the API server can tell.
    """
    if node_local:
        look = Look(
            pool=str(pool), disk=str(disk), measure=not quick, store=store, wrapping=wrapping
        )
        reports = {"this machine": _this_machine(look)}
    else:
        reports = {one.name: seen.examine(one) for one in seen.managed(reach.kube(kubeconfig))}
    if not reports:
        faults.fail("no node is labelled kyb.ai/managed=true; on a node itself: --node-local")
    show = _print_json if as_json else _print_tables
    show(reports)
    if not all(fit(found) for found in reports.values()):
        raise typer.Exit(1)


def _this_machine(look: Look) -> Sequence[Finding]:
    with console.status("looking; some seconds"):  # nothing is drawn where there is no terminal
        found = checks.examine(node.facts(Host(), look))
    return [one for one in found if look.measure or one.check not in UNMEASURED]


def _print_json(reports: Reports) -> None:
    body = {name: [one.json() for one in found] for name, found in reports.items()}
    print(json.dumps({"fit": all(fit(f) for f in reports.values()), "nodes": body}, indent=2))


def _print_tables(reports: Reports) -> None:
    for name, found in reports.items():
        console.print(_table(name, found))
        console.print(_verdict(name, found))


def _table(name: str, findings: Sequence[Finding]) -> Table:
    table = Table(title=name, title_justify="left", expand=False)
    for column in ("check", "", "found", "wanted", "how to mend"):
        table.add_column(column, overflow="fold")
    for one in findings:
        style = STYLES[one.grade]
        table.add_row(one.check, f"[{style}]{one.grade}[/]", one.found, one.wanted, one.mend)
    return table


def _verdict(name: str, findings: Sequence[Finding]) -> str:
    counts = {grade: sum(one.grade is grade for one in findings) for grade in Grade}
    told = ", ".join(f"{count} {grade}" for grade, count in counts.items() if count)
    return f"{name}: {'fit' if fit(findings) else 'not fit'} ({told})"
