"""The user's own probes and hooks that need no container: run from the pod's network namespace.

Called by: `prober`, `leaving`. Rule: an action ends within its time and answers; it never raises.
"""

import socket
import threading
from typing import Protocol

from kybernate.clients.clock import Clock
from kybernate.model.probing import Action, Grpc, HttpGet, Outcome, Sleep, TcpSocket
from nodeagent.probing import health, web
from nodeagent.probing.limit import Limit
from nodeagent.probing.netns import Network, Process, connect

_NEVER = threading.Event()


class Actions(Protocol):
    """Who carries them out."""

    def run(self, action: Action | None, process: Process, seconds: float) -> Outcome:
        """What came of it. A command in the container is not for here."""


class PodActions:
    """From the network namespace of the workload's first process."""

    def __init__(self, network: Network, clock: Clock) -> None:
        self._network, self._clock = network, clock

    def run(self, action: Action | None, process: Process, seconds: float) -> Outcome:
        """As the port says."""
        limit = Limit(seconds)
        try:
            return self._run(action, process, limit)
        except TimeoutError:
            return Outcome(passed=False, say=str(limit.over()))
        except OSError as error:
            return Outcome(passed=False, say=str(error))

    def _run(self, action: Action | None, process: Process, limit: Limit) -> Outcome:
        def reach(host: str, port: int) -> socket.socket:
            return connect(self._network, process, host or own, port, limit.left())

        own = self._network.address(process)
        match action:
            case HttpGet():
                return web.get(action, reach, own, limit)
            case TcpSocket():
                reach(action.host, action.port).close()
            case Grpc():
                return health.check(action, reach, limit)
            case Sleep():
                self._clock.wait(_NEVER, min(action.seconds, limit.left()))
        return Outcome(passed=True)
