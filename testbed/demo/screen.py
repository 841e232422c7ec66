"""What the viewer sees: on a terminal a live table under the story, elsewhere plain lines.

Called by the scenario with story lines, and by a watcher with the agent's state. Draws, no more.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kybernate.clients.agents import CardState, NodeView

GIB = 1 << 30
STYLES = {"Active": "bold green", "Parked": "cyan", "Waiting": "yellow", "Quarantined": "bold red"}
LOOK_EVERY_S = 0.25


class Screen(Protocol):
    """Where the story is told. A context manager."""

    def act(self, title: str) -> None:
        """A new act begins."""

    def tell(self, text: str) -> None:
        """One line of the story."""

    def __enter__(self) -> "Screen": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PlainScreen(AbstractContextManager["PlainScreen"]):
    """Lines, for a log or a pipe."""

    def act(self, title: str) -> None:
        """A heading."""
        print(f"\n== {title}", flush=True)

    def tell(self, text: str) -> None:
        """A line."""
        print(f"   {text}", flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class LiveScreen(AbstractContextManager["LiveScreen"]):
    """A table of seats that follows the agent, under the story."""

    def __init__(self, state: Callable[[], NodeView | None]) -> None:
        self._state = state
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def act(self, title: str) -> None:
        """A heading above the table."""
        self._console.print(f"\n[bold]{title}[/bold]")

    def tell(self, text: str) -> None:
        """A line above the table."""
        told = text.lstrip()
        indent = 2 + len(text) - len(told)  # kept where a long line is wrapped
        self._console.print(Padding(Text(told), (0, 0, 0, indent)))

    def __enter__(self) -> "LiveScreen":
        self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._live.stop()

    def _follow(self) -> None:
        while not self._done.wait(LOOK_EVERY_S):
            status = self._state()
            if status is not None:
                self._live.update(draw(status), refresh=True)


def screen(state: Callable[[], NodeView | None]) -> LiveScreen | PlainScreen:
    """A live one on a terminal, a plain one elsewhere."""
    return LiveScreen(state) if sys.stdout.isatty() else PlainScreen()


def draw(status: NodeView) -> RenderableType:
    """The GPUs' memory as bars, and a row per seat."""
    return Group(*(_bar(gpu) for gpu in status.cards), _table(status))


def _bar(gpu: CardState) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    used = f"{gpu.used / GIB:.0f} of {gpu.memory / GIB:.0f} GiB"
    bar = ProgressBar(total=gpu.memory, completed=gpu.used, width=40)
    grid.add_row(f"GPU {gpu.index}", bar, used, gpu.product)
    return grid


def _table(status: NodeView) -> Table:
    table = Table(title=f"{status.node}   policy {status.policy_revision}", expand=False)
    for column in ("seat", "workload", "class", "state", "tier", "VRAM", "for", "why"):
        table.add_column(column, justify="right" if column in {"VRAM", "for"} else "left")
    for one in sorted(status.workloads, key=lambda w: w.seat):
        table.add_row(
            one.seat,
            one.key.name,
            f"{one.workload_class} {one.priority}",
            Text(one.state, style=STYLES.get(one.state, "")),
            one.tier,
            f"{one.vram / GIB:.0f} GiB",
            f"{one.seconds_in_state:.0f} s",
            one.why,
        )
    return table
