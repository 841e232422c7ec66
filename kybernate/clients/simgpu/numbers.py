"""
Which process is meant: a workload tells its number as it sees it itself, in its own namespace.

Called by: `driver`. Numbers of another namespace are looked up in /proc; a process that was
restored has the same number as before in its own namespace, and another one here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


class Numbers:
    """What was found is remembered, and believed as long as it is still so."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], int] = {}
        self._own = self.namespace(os.getpid())

    def ours(self, pid: int, namespace: int) -> int:
        """The process by our numbers; 0 when we see none such."""
        if namespace in (0, self._own):
            return pid
        known = self._known.get((namespace, pid))
        if known is None or not self._is(known, pid, namespace):
            known = next((one for one in _all() if self._is(one, pid, namespace)), 0)
            self._known[namespace, pid] = known
        return known

    def namespace(self, pid: int) -> int:
        """The number of a process's namespace; 0 when it is gone or not ours to see."""
        try:
            return (_PROC / str(pid) / "ns/pid").stat().st_ino
        except OSError:
            return 0

    def _is(self, candidate: int, pid: int, namespace: int) -> bool:
        return self.namespace(candidate) == namespace and _innermost(candidate) == pid


def _all() -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _innermost(pid: int) -> int:
    """Its number in its own namespace; 0 when it is gone."""
    try:
        text = (_PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    line = next((one for one in text.splitlines() if one.startswith("NSpid:")), "NSpid: 0")
    return int(line.split()[-1])
