"""
Sockets in a pod's network namespace. Called by `actions`, mechanisms and `demand`; a fake makes
them in ours.

A socket belongs to the namespace it was made in, whoever uses it later. So one thread does nothing
but enter a namespace, make a socket and come back: some tens of microseconds, no process. A thread
that could not come back makes nothing more and ends.
"""

import ctypes
import os
import queue
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from nodeagent.linux.processes import PROC, is_same

_NETWORK = 0x40000000  # CLONE_NEWNET
_PATIENCE_S = 5.0
# Nobody's addresses (RFC 5737, 3849): nothing is sent, the kernel only says from which of ours.
_ANYWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD = 9
_Kind = tuple[int, int, int]  # family, type, protocol


@dataclass(frozen=True, slots=True)
class Process:
    """Whose namespace: `started` in clock ticks after boot, since numbers come again."""

    pid: int
    started: int


class Network(Protocol):
    """What actions need of a pod's network. Everything raises OSError."""

    def socket(self, process: Process, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A new one in there."""

    def address(self, process: Process) -> str:
        """The pod's own."""


# Whoever comes to a pod's loopback from here is the agent, and no client: the demand's signals know
# it. All of 127.0.0.0/8 is every namespace's own; 75, 89, 66 are K, Y, B.
AGENTS_OWN = "127.75.89.66"


def connect(
    network: Network,
    process: Process,
    host: str,
    port: int,
    seconds: float,
    *,
    unseen: bool = False,
) -> socket.socket:
    """A TCP connection from in there; `unseen` is to an IPv4 loopback, and no demand. Raises
    OSError."""
    (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    line = network.socket(process, family, kind)
    try:
        if unseen:
            line.bind((AGENTS_OWN, 0))
        line.settimeout(seconds)
        line.connect(address)
    except OSError:
        line.close()
        raise
    return line


class Namespaces:
    """The real ones. Thread safe; the thread begins with the first question."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[Process, _Kind, Future[socket.socket]]]
        self._asked = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def socket(self, process: Process, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """As the port says."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="netns", daemon=True)
                self._thread.start()
        made: Future[socket.socket] = Future()
        self._asked.put((process, (family, kind, protocol), made))
        return made.result(_PATIENCE_S)

    def address(self, process: Process) -> str:
        """As the port says: what it would be seen as; the loopback's where it has no way out."""
        for family, there in _ANYWHERE:
            with suppress(OSError), self.socket(process, family, socket.SOCK_DGRAM) as line:
                line.connect((there, _DISCARD))
                return str(line.getsockname()[0])
        return "127.0.0.1"

    def _run(self) -> None:
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while self._serve(ours):
                pass
        finally:
            os.close(ours)

    def _serve(self, ours: int) -> bool:
        """Whether this thread is at home again."""
        process, kind, made = self._asked.get()
        try:
            made.set_result(_made(process, kind))
        except OSError as error:
            made.set_exception(error)
        try:
            _enter(ours)
        except OSError:
            return False
        return True


def _made(process: Process, kind: "_Kind") -> socket.socket:
    theirs = os.open(PROC / str(process.pid) / "ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not is_same(process.pid, process.started):
            raise ProcessLookupError(f"process {process.pid} has ended")
        _enter(theirs)
        return socket.socket(*kind)
    finally:
        os.close(theirs)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_libc = ctypes.CDLL(None, use_errno=True)
