"""What the viewer sees: on a terminal a live table, elsewhere a line every few seconds. Draws only.

Called by: `__main__`, with the activator's figures.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

View = Mapping[str, Any]
GIB = 1 << 30
STYLES = {"Active": "bold green", "Activating": "yellow", "Parking": "yellow", "Parked": "cyan"}
TIERS = {"vram": "VRAM", "ram": "RAM", "nvme": "NVMe", "object": "S3", "none": "no pod"}
LOOK_EVERY_S, LINE_EVERY_S = 0.25, 5.0


class Screen(AbstractContextManager["Screen"]):
    """Follows `look` until it ends."""

    def __init__(self, look: Callable[[], View | None]) -> None:
        self._look = look
        self._live = sys.stdout.isatty()
        self._console = Console(highlight=False)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Screen":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        if not self._live:
            while not self._over.wait(LINE_EVERY_S):
                self._say()
            return
        with Live(console=self._console, auto_refresh=False) as live:
            while not self._over.wait(LOOK_EVERY_S):
                view = self._look()
                if view is not None:
                    live.update(draw(view), refresh=True)

    def _say(self) -> None:
        view = self._look()
        if view is not None:
            print(f"   {line(view)}", flush=True)


def line(view: View) -> str:
    """All of it in one line."""
    counts = view["counts"]
    active = [one["name"] for one in view["models"] if one["state"] == "Active"]
    queues = [f"{one['name']} {one['held']}" for one in view["models"] if one["held"]]
    return (
        f"active {' '.join(active) or 'nobody'} | answered {counts['answered']} | "
        f"waiting {counts['held']}{' (' + ', '.join(queues) + ')' if queues else ''} | "
        f"found in {found(view['hits'])} | wait p50 {view['wait']['p50']:.2f} s, "
        f"p95 {view['wait']['p95']:.2f} s | {view['switches']} switches"
    )


def found(hits: Mapping[str, int]) -> str:
    """`VRAM 81 %, RAM 19 %`: where requests found their models."""
    total = sum(hits.values())
    parts = [f"{TIERS[tier]} {100 * hits[tier] / total:.0f} %" for tier in TIERS if hits.get(tier)]
    return ", ".join(parts) or "nothing yet"


def draw(view: View) -> RenderableType:
    """The cards, a row per model, and the sums."""
    return Group(*(_card(lane) for lane in view["lanes"]), table(view), Text(line(view)))


def _card(lane: View) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    used = f"{lane['used'] / GIB:.0f} of {lane['memory'] / GIB:.0f} GiB"
    bar = ProgressBar(total=max(1, lane["memory"]), completed=lane["used"], width=40)
    grid.add_row(f"GPU {lane['gpu']}", bar, used, lane["product"])
    return grid


def table(view: View) -> Table:
    """A row per model: state, queue, where requests found it, how long they waited (seconds)."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    made.add_column("model", no_wrap=True)
    made.add_column("state", no_wrap=True)
    for name in ("queue", "done", "VRAM", "RAM", "other", "p50", "p95", "max"):
        made.add_column(name, justify="right", no_wrap=True)
    for one in view["models"]:
        made.add_row(*_row(one))
    return made


def _row(one: View) -> tuple[str | Text, ...]:
    tier = f" ({one['tier']})" if one["state"] == "Parked" else ""
    state = Text(one["state"] + tier, style=STYLES.get(one["state"], ""))
    queue = Text(str(one["held"]), style="bold yellow" if one["held"] else "")
    hits, total = one["hits"], max(1, one["requests"])
    elsewhere = one["requests"] - hits["vram"] - hits["ram"]
    shares = (f"{100 * n / total:.0f} %" for n in (hits["vram"], hits["ram"], elsewhere))
    waits = (f"{one['wait'][name]:.2f}" for name in ("p50", "p95", "max"))
    return (one["name"], state, queue, str(one["answered"]), *shares, *waits)
