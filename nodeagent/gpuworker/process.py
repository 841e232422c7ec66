"""
A worker as a process: started apart from the agent, found again by its socket, ended for sure.

Called by `client`. The agent makes the listening socket and gives it to the worker, so it can be
connected to from the first moment. Rule: whom we end, the kernel names (the other side of the
connection), not a file.
"""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kybernate.runtime.logs import get_logger
from nodeagent.gpuworker import wire

START_S = 60.0  # a driver that was not used for long takes ten
_MODULE = "nodeagent.gpuworker"
_FOUND_S = 20.0  # until a found one has ended what it was doing
_ALONE_S = 900.0  # how long it waits for an agent: an upgrade's image is pulled in that time
_END_S = 10.0
_CREDENTIALS = struct.Struct("3i")
_OURS_ALONE = ("LD_PRELOAD", "KYB_GUEST_SOCKET")
_LEFT: list[subprocess.Popen[bytes]] = []  # started here and left alone: children of ours still


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says first: what it is made of, the NUMA node of its card."""

    build: str
    node: int


class WorkerProcess:
    """One card's, or none."""

    def __init__(self, uuid: str, folder: Path, environment: Mapping[str, str]) -> None:
        """Nothing is started."""
        self._uuid = uuid
        self.path = folder / f"{uuid}.sock"
        self._environment = {k: v for k, v in environment.items() if k not in _OURS_ALONE}
        self._connection: socket.socket | None = None
        self._started: subprocess.Popen[bytes] | None = None  # by us
        self._pid = 0

    @property
    def pid(self) -> int:
        """Its number; 0 while there is none."""
        return self._pid if self.is_connected and _alive(self._pid) else 0

    @property
    def is_connected(self) -> bool:
        """As far as we know."""
        return self._connection is not None

    @property
    def connection(self) -> socket.socket:
        """To it. Raises EOFError."""
        if self._connection is None:
            raise EOFError("it is not there")
        return self._connection

    def start(self, checked: Callable[[dict[str, Any]], dict[str, Any]]) -> Hello:
        """A new one, once it is ready. Raises OSError, EOFError, ValueError, and as `checked`."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(4)
            with self.path.with_suffix(".log").open("wb") as said:  # it outlives what we write to
                self._started = subprocess.Popen(
                    [sys.executable, "-m", _MODULE, str(listener.fileno()), str(_ALONE_S)],
                    pass_fds=[listener.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    env=self._environment,
                    start_new_session=True,  # what ends our group or terminal is not meant for it
                )
            self._pid = self._started.pid
            self._connect(START_S)
        return _hello(checked(wire.receive(self.connection)[0]))

    def adopted(self) -> Hello | None:
        """The one that is there, of the same build as we are; any other is ended."""
        log = get_logger(gpu=self._uuid)
        try:
            self._connect(_FOUND_S)
            self._pid = _peer(self.connection)
            hello = _hello(wire.receive(self.connection)[0])
        except (OSError, EOFError, ValueError) as error:
            if self._connection is not None:
                log.warning("a worker that does not answer is ended", why=repr(error))
            self.end()
            return None
        if hello.build != wire.build():
            log.info("a worker of another build is ended")
            self.end()
            return None
        log.info("a worker is taken up", pid=self._pid)
        return hello

    def disconnect(self) -> None:
        """Leave it alone."""
        if self._connection is not None:
            self._connection.close()
        if self._started is not None and self._started.poll() is None:
            _LEFT.append(self._started)
        self._connection, self._started = None, None

    def end(self) -> None:
        """It is gone when this returns, unless not even the kernel can end it."""
        if self._pid:
            _ended(self._pid)
        if self._started is not None:
            with suppress(subprocess.TimeoutExpired):
                self._started.wait(_END_S)
        self.disconnect()
        self._pid = 0
        _LEFT[:] = [one for one in _LEFT if one.poll() is None]  # it may be one of these

    def _connect(self, limit: float) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(limit)
        try:
            self._connection.connect(str(self.path))
        except OSError:
            self.disconnect()
            raise


def _hello(said: dict[str, Any]) -> Hello:
    if not said.get("ok"):
        raise ValueError(f"it could not begin: {said.get('why')}")
    return Hello(build=str(said.get("build")), node=int(said.get("node", -1)))


def _peer(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[0])


def _alive(pid: int) -> bool:
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"


def _ended(pid: int) -> None:
    """Kill a process we hold a connection to, and wait for it."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _MODULE not in (Path("/proc") / str(pid) / "cmdline").read_text().split("\0"):
            return  # it ended, and the number is another's
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        if not select.select([process], [], [], _END_S)[0]:
            get_logger(pid=pid).error("a worker does not end")
    except OSError:
        return  # its folder in /proc went away under us
    finally:
        os.close(process)
