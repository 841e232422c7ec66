"""`kyb top`: every GPU, who has it, what is used and booked, who waits and since when.

Live where somebody looks at a terminal, else printed once, as kubectl prints. What it shows is in
`overview`; here it is drawn.
"""

import threading
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kyb import overview, reach
from kyb.overview import Overview
from kybernate.clients import resources
from kybernate.clients.errors import Unavailable
from kybernate.clients.kube import Kube
from kybernate.runtime.clock import SystemClock

WIDEST = 10_000


def top(
    kubeconfig: reach.Kubeconfig = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Workloads of this one only.")
    ] = None,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, also at a terminal.")] = False,
) -> None:
    """Show the GPUs and who has them, until Ctrl-C."""
    kube, console = reach.kube(kubeconfig), Console(highlight=False)
    seen = _look(kube, namespace)
    if once or not console.is_terminal:
        _print(seen)
        return
    pause = threading.Event()
    with Live(_drawn(seen), console=console, screen=True, auto_refresh=False) as live:
        try:
            while not pause.wait(every):
                live.update(_next(kube, namespace, seen), refresh=True)
        except KeyboardInterrupt:
            return


def _look(kube: Kube, namespace: str | None) -> Overview:
    nodes = kube.list(resources.GPUNODES)
    workloads = kube.list(resources.GPUWORKLOADS, namespace)
    return overview.of(nodes, workloads, SystemClock().now())


def _next(kube: Kube, namespace: str | None, last: Overview) -> Group:
    try:
        return _drawn(_look(kube, namespace))
    except Unavailable as away:
        words = f"the API server does not answer ({away.status or away.reason}); this is the last"
        return Group(Text(words, style="bold red"), _drawn(last))


def _drawn(seen: Overview) -> Group:
    return Group(_table(overview.GPU_COLUMNS, seen.gpus), "", _workloads(seen))


def _workloads(seen: Overview) -> Table | str:
    if not seen.workloads:
        return "no workloads"
    return _table(overview.WORKLOAD_COLUMNS, seen.workloads)


def _print(seen: Overview) -> None:
    """Rows as long as they are, also in a pipe."""
    for part in (_table(overview.GPU_COLUMNS, seen.gpus), "", _workloads(seen)):
        usual = Console(highlight=False)
        if isinstance(part, str):
            usual.print(part)
            continue
        needed = Measurement.get(usual, usual.options.update(max_width=WIDEST), part).maximum
        Console(highlight=False, width=max(usual.width, needed)).print(part)


def _table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


STYLES = {
    "Active": "bold green", "Parked": "cyan", "Waiting": "yellow", "Quarantined": "bold red",
    "Unhealthy": "bold red", "Unknown": "bold red",
}  # fmt: skip


def _cell(text: str) -> Text:
    return Text(text, style=STYLES.get(text, ""))
