"""
How the sockets of network namespaces are looked at: one line to the kernel for each, kept open, and
a tap while somebody in there is parked.

Called by: `watch`, from its thread only. Rule: the host's own namespace is never tapped; who lives
there (a light node's pods, `hostNetwork`) is looked at often instead, and all that are parked there
by one look a round, for each shows the whole host and takes milliseconds. Rule: what is closed is
closed by another thread, for the kernel takes its time over a tap.
"""

import queue
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from nodeagent.demand import sockdiag, taps
from nodeagent.demand.sockdiag import Socket
from nodeagent.linux.processes import PROC
from nodeagent.lives.life import Life
from nodeagent.probing.netns import Network, Process


@dataclass
class Line:
    """One network namespace. `tap` is None where there is none, or none is needed."""

    shared: bool  # the host's
    diag: socket.socket | None = None
    tap: socket.socket | None = None
    seen: tuple[Socket, ...] | None = None  # by this round


class Lines:
    """By namespace."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._together: frozenset[str] = frozenset()
        self._lines: dict[int, Line] = {}
        self._old: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._hosts = {_namespace("self")}
        with suppress(PermissionError):  # process 1 is another user namespace's, as in a sandbox
            self._hosts.add(_namespace("1"))
        threading.Thread(target=self._close_old, name="taps", daemon=True).start()

    def look_together(self, life_ids: Iterable[str]) -> None:
        """A round begins: on the host, one look from now on serves all of these."""
        self._together = frozenset(life_ids)
        for line in self._lines.values():
            line.seen = None

    def look(self, life: Life) -> tuple[Socket, ...]:
        """Everybody's sockets in its namespace. Raises OSError."""
        line = self.line(life)
        if not line.shared or life.id not in self._together:
            return self._look(line, life)
        if line.seen is None:
            line.seen = self._look(line, life)
        return line.seen

    def _look(self, line: Line, life: Life) -> tuple[Socket, ...]:
        if line.diag is None:
            family, kind = socket.AF_NETLINK, socket.SOCK_RAW
            line.diag = self._network.socket(_process(life), family, kind, sockdiag.PROTOCOL)
        try:
            return sockdiag.look(line.diag)
        except OSError:
            line.diag.close()  # what it still has to say is of a look that failed
            line.diag = None
            raise

    def line(self, life: Life) -> Line:
        """Of its namespace. Raises OSError."""
        namespace = self.namespace_of(life)
        if namespace not in self._lines:
            self._lines[namespace] = Line(shared=namespace in self._hosts)
        return self._lines[namespace]

    def tap(self, life: Life) -> socket.socket | None:
        """Readable when something comes in there; None on the host's. Raises OSError."""
        line = self.line(life)
        if line.tap is None and not line.shared:
            family, kind = socket.AF_PACKET, socket.SOCK_DGRAM
            tap = self._network.socket(_process(life), family, kind, taps.EVERYTHING)
            try:
                taps.only_tcp(tap)
            except OSError:
                tap.close()
                raise
            line.tap = tap
        return line.tap

    def namespace_of(self, life: Life) -> int:
        """What tells it from others. Raises OSError."""
        return _namespace(str(life.record.pid))

    def keep(self, tapped: set[int], all_: set[int]) -> None:
        """Close the taps of all other namespaces than `tapped`, and the lines of all but `all_`."""
        for namespace in self._lines.keys() - all_:
            self._drop(namespace)
        for namespace in self._lines.keys() - tapped:
            self._untap(self._lines[namespace])

    def close(self) -> None:
        """All of them."""
        self.keep(set(), set())

    def _drop(self, namespace: int) -> None:
        line = self._lines.pop(namespace)
        self._untap(line)
        if line.diag is not None:
            line.diag.close()

    def _untap(self, line: Line) -> None:
        if line.tap is not None:
            self._old.put(line.tap)
            line.tap = None

    def _close_old(self) -> None:
        while True:
            with suppress(OSError):
                self._old.get().close()


def _namespace(pid: str) -> int:
    return (PROC / pid / "ns/net").stat().st_ino


def _process(life: Life) -> Process:
    return Process(life.record.pid, life.record.pid_started)
