"""
Processes of the node, from /proc. Called by containers, recovery, mechanisms and the freezer.

Rule: a process number alone names nobody, since numbers come again: with its start time it does.
"""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from nodeagent.linux.cgroups import Cgroups

Owner = TypeVar("Owner")


class Numbered(Protocol):
    """What shows a process by its number."""

    @property
    def pid(self) -> int:
        """The number."""


Shown = TypeVar("Shown", bound=Numbered)

PROC = Path("/proc")
_STATE, _PARENT, _STARTED = 0, 1, 19  # positions after the command's closing parenthesis
# One that does not stop within this waits in the kernel, and cannot ask for VRAM either.
_STOPPING_S, _LOOK_S = 10.0, 0.001
_AGAIN_S = 0.1
_NEVER = threading.Event()
_DEPTH = 64  # no process stands deeper below its container's first one


def boot_id() -> str:
    """Changes with every start of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def started(pid: int) -> int | None:
    """Clock ticks from boot to the process's start; None when there is no such process."""
    fields = _stat(pid)
    return None if fields is None or fields[_STATE] in "ZX" else int(fields[_STARTED])


def is_same(pid: int, started_at: int) -> bool:
    """Whether that very process still lives."""
    return started(pid) == started_at


def image(pid: int) -> str:
    """A hash of its command line: it changes when a held process goes on to its program."""
    try:
        line = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return hashlib.blake2b(line, digest_size=8).hexdigest()


def belonging(
    pids: Iterable[int], first: int, container_id: str, cgroups: Cgroups
) -> frozenset[int]:
    """Those of the container with that first process: below it, or run in it later, so that only
    the cgroup tells. Each is looked at one time, and so are those above."""
    if first <= 0:
        return frozenset()  # a container without a process
    parents: dict[int, int] = {}
    return frozenset(
        pid
        for pid in set(pids)
        if pid > 0  # one that nobody can name is 0
        and (_descends(pid, first, parents) or container_id in cgroups.names(pid))
    )


def of_container(
    shown: Iterable[Shown], first: int, container_id: str, cgroups: Cgroups
) -> tuple[Shown, ...]:
    """Of what shows processes, that which shows its own, as `belonging` says."""
    all_ = tuple(shown)
    own = belonging((one.pid for one in all_), first, container_id, cgroups)
    return tuple(one for one in all_ if one.pid in own)


def _descends(pid: int, first: int, parents: dict[int, int]) -> bool:
    """Whether it is `first` or below it; `parents` are those known already."""
    for _ in range(_DEPTH):
        if pid == first or pid <= 0:
            return pid == first
        if pid not in parents:
            fields = _stat(pid)
            parents[pid] = 0 if fields is None else int(fields[_PARENT])
        pid = parents[pid]
    return False


def owner(
    pid: int, firsts: Mapping[int, Owner], ids: Mapping[str, Owner], cgroups: Cgroups
) -> Owner | None:
    """As `belonging`, asked once of many containers: by their first processes, and by their ids."""
    for one in lineage(pid):
        if one in firsts:
            return firsts[one]
    return next((ids[name] for name in cgroups.names(pid) if name in ids), None)


def lineage(pid: int) -> Iterator[int]:
    """A process, its parent, and so on up."""
    for _ in range(_DEPTH):
        fields = _stat(pid) if pid > 0 else None
        if fields is None:
            return
        yield pid
        pid = int(fields[_PARENT])


def tree(pid: int) -> tuple[int, ...]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for other in _all():
        fields = _stat(other)
        if fields is not None:
            children.setdefault(int(fields[_PARENT]), []).append(other)
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return tuple(found)


def resident(pid: int) -> int:
    """Bytes of memory that a process tree has; those of processes that end meanwhile left out."""
    return sum(_resident(one) for one in tree(pid))


def _resident(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    found = next((line for line in lines if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(found.split()[1]) * 1024


def await_end_of(verb: str, subject: str, limit: float) -> bool:
    """Until no program runs whose arguments have both words; whether that is so in time."""
    until = time.monotonic() + limit
    while any(_has_words(one, verb, subject) for one in _all()):
        if time.monotonic() >= until:
            return False
        _NEVER.wait(_AGAIN_S)
    return True


def inner(pid: int) -> int:
    """Its number in its own pid namespace, which an image keeps; where it ended, the number."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return pid
    found = next((line for line in lines if line.startswith("NSpid:")), f"NSpid: {pid}")
    return int(found.split()[-1])


def _has_words(pid: int, *words: str) -> bool:
    try:
        arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(word.encode() in arguments for word in words)


def freeze(pid: int) -> bool:
    """Stop a process tree, parents first, and whom they made meanwhile. Whether all of them stand:
    a signal takes its time."""
    until = time.monotonic() + _STOPPING_S
    while (running := [one for one in tree(pid) if _runs(one)]) and time.monotonic() < until:
        for one in running:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGSTOP)
        while any(map(_runs, running)) and time.monotonic() < until:
            _NEVER.wait(_LOOK_S)
    return not running


def thaw(pid: int) -> None:
    """Let those of the tree that are stopped go on."""
    for one in tree(pid):
        if is_stopped(one):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped it."""
    fields = _stat(pid)
    return fields is not None and fields[_STATE] == "T"


def _runs(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[_STATE] not in "TtZX"


def _all() -> Iterator[int]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"{PROC}/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            text = file.read()  # asked so often that making paths took longer than reading
    except OSError:
        return None
    # The command stands in parentheses and may hold anything, parentheses too.
    return text[text.rfind(")") + 2 :].split()
