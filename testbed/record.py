"""
Which processes a work folder has running, in a file, and ending exactly those.

Called by: `testbed.processes` (writes it), `testbed.watchdog` and `kyb down` (end what it names).
Rule: a process is its number, its start time and the machine's boot; a number alone is never
trusted, because the kernel gives it out again.
Rule: last started, first ended. First SIGTERM, then SIGKILL to the whole process group.
Rule: one that was killed cannot end what it had started in sessions of its own; the program that
does so instead stands in the record beside it, and runs once it is gone.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL; a busy kube-apiserver takes a few seconds to drain."""
_LOOK_EVERY_S = 0.02
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SOURCES = str(Path(__file__).parents[1])


@dataclass(frozen=True, slots=True)
class Recorded:
    """One process, the leader of its own session."""

    name: str
    pid: int
    started: int
    """Clock ticks between the machine's boot and the process's start (/proc/PID/stat, field 22)."""
    afterwards: tuple[str, ...] = ()
    """A program, with its arguments, that ends what the process may have left running."""


def identify(name: str, pid: int, afterwards: Sequence[str] = ()) -> Recorded:
    """The record of a process that exists. Raises ProcessLookupError."""
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(f"{name} (process {pid}) is gone")
    return Recorded(name, pid, stat[1], tuple(afterwards))


def alive(process: Recorded) -> bool:
    """Whether that very process still runs; one that waits to be reaped does not."""
    stat = _stat(process.pid)
    return stat is not None and stat[1] == process.started and stat[0] not in "ZX"


def end(process: Recorded, grace: float = GRACE_S) -> None:
    """Stop it and its process group; returns when it is gone. Does nothing to anybody else."""
    stat = _stat(process.pid)
    if stat is None or stat[1] != process.started:
        return  # while it waits to be reaped its number is still its own, and so is its group
    _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while alive(process) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    # Also after a graceful end: the leader may have left children in its group.
    _signal(process, signal.SIGKILL)
    while alive(process):
        time.sleep(_LOOK_EVERY_S)


def clear_up(process: Recorded) -> None:
    """End what it left. To be called when it is gone."""
    if process.afterwards:
        env = {**os.environ, "PYTHONPATH": _SOURCES}
        subprocess.run(process.afterwards, env=env, stdout=subprocess.DEVNULL, check=False)


def write(file: Path, processes: list[Recorded]) -> None:
    """Replace the record by one rename."""
    body = {"boot": _boot(), "processes": [asdict(process) for process in processes]}
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(json.dumps(body))
    draft.replace(file)


def read(file: Path) -> list[Recorded]:
    """What was running, in the order it was started; nothing without a record of this boot."""
    try:
        body = json.loads(file.read_text())
    except FileNotFoundError:
        return []
    if body["boot"] != _boot():
        return []
    return [_recorded(process) for process in body["processes"]]


def end_all(file: Path, grace: float = GRACE_S) -> list[str]:
    """End what the record names and remove the record; the names of those that were running."""
    recorded = read(file)
    running = [process for process in recorded if alive(process)]
    for process in reversed(recorded):
        end(process, grace)
        clear_up(process)
    file.unlink(missing_ok=True)
    return [process.name for process in running]


def _recorded(body: dict[str, Any]) -> Recorded:
    return Recorded(**{**body, "afterwards": tuple(body.get("afterwards", ()))})


def _signal(process: Recorded, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time. The command's name may itself hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _boot() -> str:
    return _BOOT_ID.read_text().strip()
