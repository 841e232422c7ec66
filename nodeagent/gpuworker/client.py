"""
The agent's side of a worker: takes up the one that is there or starts one, asks it, ends it when it
does not answer.

Called by the `guest` mechanism. One request at a time; thread safe.
Rule: every request has a time limit. A worker that misses it is killed and its work with it, which
is safe at any moment: the guests' gates are closed, and nothing lasts in a worker.
"""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kybernate.clients.errors import Refused, Retry
from nodeagent.gpuworker import wire
from nodeagent.gpuworker.process import Hello, WorkerProcess

_CONTINUING = frozenset({"take", "compare", "move", "finish", "drop", "end", "store"})
"""Of work that a new worker knows nothing of."""


class WorkerAway(Retry):
    """The worker did not start or did not answer; another one is started for the next request."""


class WorkerRefused(Refused):
    """The worker could not. `code` is the driver's error, 0 where it was none of the driver's."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


class Worker:
    """One card's worker, started when it is first asked. `first` is said to each new one."""

    def __init__(
        self,
        uuid: str,
        folder: Path,
        first: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Its socket is below `folder`; `environment` is added to ours."""
        self.uuid = uuid
        self._first = dict(first)
        self._lock = threading.Lock()
        self._process = WorkerProcess(
            uuid, folder, {**os.environ, "CUDA_VISIBLE_DEVICES": uuid, **(environment or {})}
        )
        self._hello: Hello | None = None

    @property
    def pid(self) -> int:
        """Of the process; 0 while there is none."""
        return self._process.pid

    def node(self) -> int:
        """The NUMA node of its card; -1 where it is not known. Raises WorkerAway."""
        self.ask({"op": "about"}, _ABOUT_S)
        return self._hello.node if self._hello else -1

    def adopt(self) -> bool:
        """Take up the worker of a former agent, once all it was doing has ended. Another build's,
        or one that does not answer, is ended. Whether there is one now."""
        with self._lock:
            self._hello = self._process.adopted()
            return self._hello is not None and self._introduced()

    def ask(
        self, message: dict[str, Any], limit: float, descriptors: list[int] | None = None
    ) -> dict[str, Any]:
        """The reply. `limit` in seconds. Raises WorkerAway, WorkerRefused."""
        with self._lock:
            try:
                if self._hello is None or not self._process.is_connected:
                    self._begin(message["op"])
                return self._said(message, limit, descriptors)
            except (OSError, EOFError, ValueError) as error:
                self._end()
                raise WorkerAway(f"the worker of {self.uuid} is away: {error!r}") from error

    def close(self) -> None:
        """Go away; it stays, and waits for the next agent."""
        with self._lock:
            self._process.disconnect()

    def dismiss(self) -> None:
        """End it."""
        with self._lock:
            self._end()

    def _begin(self, operation: str) -> None:
        self._end()
        if operation in _CONTINUING:
            raise EOFError("it died with the work it had begun")
        self._hello = self._process.start(_checked)
        self._said(self._first, _ABOUT_S, None)

    def _introduced(self) -> bool:
        try:
            self._said(self._first, _ABOUT_S, None)
        except (OSError, EOFError, ValueError, WorkerRefused):
            self._end()
            return False
        return True

    def _said(
        self, message: dict[str, Any], limit: float, descriptors: list[int] | None
    ) -> dict[str, Any]:
        with_limit = self._process.connection
        with_limit.settimeout(limit)
        wire.send(with_limit, message, descriptors)
        return _checked(wire.receive(with_limit)[0])

    def _end(self) -> None:
        self._hello = None
        self._process.end()


_ABOUT_S = 10.0


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    if not reply.get("ok"):
        raise WorkerRefused(str(reply.get("why")), int(reply.get("code", 0)))
    return reply
