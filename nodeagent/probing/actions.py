"""The user's own probes and hooks that need no container: run from the pod's network namespace.

Called by: `prober`, `leaving`. Rule: an action ends within its time and answers; it never raises.
"""

import threading
from typing import Protocol

from kybernate.clients.clock import Clock
from kybernate.model.probing import Action, Grpc, HttpGet, Outcome, Sleep, TcpSocket
from nodeagent.probing import health, web
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
        try:
            return self._run(action, process, seconds)
        except TimeoutError:
            return Outcome(passed=False, say=f"no answer within {seconds:g} s")
        except OSError as error:
            return Outcome(passed=False, say=str(error))

    def _run(self, action: Action | None, process: Process, seconds: float) -> Outcome:
        network = self._network
        match action:
            case HttpGet():
                own = network.address(process)
                return web.get(
                    action,
                    lambda host, port: connect(network, process, host or own, port, seconds),
                    own,
                    seconds,
                )
            case TcpSocket():
                connect(network, process, action.host, action.port, seconds).close()
            case Grpc():
                return health.check(
                    action, lambda: connect(network, process, "", action.port, seconds), seconds
                )
            case Sleep():
                self._clock.wait(_NEVER, min(action.seconds, seconds))
        return Outcome(passed=True)
