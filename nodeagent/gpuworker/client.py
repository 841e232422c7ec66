"""
The agent's side of a worker: starts it, asks it, ends it when it does not answer.

Called by the `guest` mechanism. One request at a time; thread safe.
Rule: every request has a time limit. A worker that misses it is killed and its work with it, which
is safe at any moment: the guests' gates are closed, and nothing lasts in a worker.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kybernate.clients.errors import Refused, Retry
from nodeagent.gpuworker import wire

START_S = 60.0  # a driver that was not used for long takes ten
_END_S = 10.0
_CONTINUING = frozenset({"take", "finish", "drop"})  # of work that a new worker knows nothing of


class WorkerAway(Retry):
    """The worker did not start or did not answer; another one is started for the next request."""


class WorkerRefused(Refused):
    """The worker could not. `code` is the driver's error, 0 where it was none of the driver's."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


class Worker:
    """One card's worker, started when it is first asked."""

    def __init__(self, uuid: str, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is added to ours."""
        self._uuid = uuid
        self._environment = dict(environment or {})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        process = self._process
        return process.pid if process and process.poll() is None else 0

    def ask(
        self, message: dict[str, Any], limit: float, descriptors: list[int] | None = None
    ) -> dict[str, Any]:
        """The reply. `limit` in seconds. Raises WorkerAway, WorkerRefused."""
        with self._lock:
            try:
                agent = self._connected(message["op"])
                agent.settimeout(limit)
                wire.send(agent, message, descriptors)
                return _checked(wire.receive(agent)[0])
            except (OSError, EOFError, ValueError) as error:
                self._end()
                raise WorkerAway(f"the worker of {self._uuid} is away: {error!r}") from error

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._end()

    def _connected(self, operation: str) -> socket.socket:
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self._end()
            if operation in _CONTINUING:
                raise EOFError("it died with the work it had begun")
            self._start()
        assert self._socket is not None
        return self._socket

    def _start(self) -> None:
        ours, theirs = wire.pair()
        environment = {
            **os.environ, "CUDA_VISIBLE_DEVICES": self._uuid, **self._environment,
        }  # fmt: skip
        for ours_alone in ("LD_PRELOAD", "KYB_GUEST_SOCKET"):
            environment.pop(ours_alone, None)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nodeagent.gpuworker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        self._socket = ours
        ours.settimeout(START_S)
        _checked(wire.receive(ours)[0])

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        process, self._socket, self._process = self._process, None, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    if not reply.get("ok"):
        raise WorkerRefused(str(reply.get("why")), int(reply.get("code", 0)))
    return reply
