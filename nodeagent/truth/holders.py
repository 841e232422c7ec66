"""
Who keeps a card's descriptors open: the driver frees a process's VRAM when the last one is closed,
so a child that was forked may hold what no living process has.

Called by: `neighbours`, for bytes that NVML gives to nobody, or to a process that is gone.
Rule: who has memory on a card has the card's node and the driver's memory node open; who only looks
(NVML) has the first alone. A child of a process that NVML knows is nothing unusual.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.eligibility.facts import open_files
from nodeagent.truth.own import is_own

_MEMORY = "/dev/nvidia-uvm"
_PARENT = 1  # after the state, behind the name's bracket


@dataclass(frozen=True, slots=True)
class Keeper:
    """A process with a card's device node open."""

    pid: int
    command: str


def keepers(nodes: Sequence[str], known: frozenset[int], proc: Path) -> tuple[Keeper, ...]:
    """Who has one of these nodes (/dev/nvidia0) open and memory behind it, and descends from none
    of the `known` processes. Containers have the nodes by the same names."""
    pids = sorted(int(one.name) for one in proc.iterdir() if one.name.isdigit())
    return tuple(
        Keeper(pid, _command(proc, pid))
        for pid in pids
        if _has_memory(nodes, open_files(pid, proc))
        and not is_own(pid, proc)
        and known.isdisjoint(_line(pid, proc))
    )


def _has_memory(nodes: Sequence[str], names: Collection[str]) -> bool:
    return _MEMORY in names and not set(nodes).isdisjoint(names)


def _line(pid: int, proc: Path) -> Iterator[int]:
    """It, its parent, and so on."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        seen.add(pid)
        yield pid
        pid = _parent(pid, proc)


def _parent(pid: int, proc: Path) -> int:
    try:
        return int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[_PARENT])
    except (OSError, ValueError, IndexError):
        return 0


def _command(proc: Path, pid: int) -> str:
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""
