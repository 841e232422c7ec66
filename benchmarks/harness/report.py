"""
The end of every benchmark: a table for people, then one line of JSON.

Rule: the names in the JSON stay; results with machine and date are kept in
docs/explanation/performance.md.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import orjson
from rich.console import Console
from rich.table import Table

_ROOT = Path(__file__).parents[2]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one; the first column is text, the others are numbers."""
    made = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        made.add_column(column, justify="right" if at else "left")
    for row in rows:
        made.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120).print(made)


def last_line(
    benchmark: str, ratios: Mapping[str, float], seconds: Mapping[str, float], **more: object
) -> None:
    """Print the line of JSON."""
    result = {
        "benchmark": benchmark,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "seconds": {name: round(value, 6) for name, value in seconds.items()},
        **more,
        "commit": commit(),
        "machine": machine(),
    }
    sys.stdout.write(orjson.dumps(result).decode() + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """`percentile(seconds, 0.99)`; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def middle(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return median(values) if values else 0.0


def commit() -> str:
    """The commit that is measured, with `+` where files differ from it."""
    found = _git("rev-parse", "--short=12", "HEAD")
    return f"{found}+" if _git("status", "--porcelain", "--untracked-files=no") else found


def machine() -> str:
    """Processor and number of cores we may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "?")
    return f"{len(os.sched_getaffinity(0))} x {model}"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown" * (arguments[0] == "rev-parse")
