"""
Fetching a checkpoint from the agent of another node, which lends its store (`lentstore`).

Called by: whoever wakes, the Copies service. Rule: a lost connection is taken up at the object
where it broke; who does not answer for as long as `Patience` says is away.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from kybernate.clients.backoff import Pace
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.ladder.keyring import BadKeys
from kybernate.ladder.progress import Course, Ended
from kybernate.model.ids import NodeName
from kybernate.runtime.logs import get_logger
from kybernate.stores.errors import Denied, Faulty
from kybernate.stores.peer import Peer
from kybernate.stores.retrying import Retrying
from nodeagent.checkpoints import fetching
from nodeagent.checkpoints.faults import Cancelled, PeerAway
from nodeagent.checkpoints.fetching import Tell, Use, Wanted
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

Channels = Callable[[NodeName], str]
"""HOST:PORT of a node's agent. Raises PeerAway where it is not known."""


_PACE = Pace(first=0.5, longest=10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often an object is asked for, in all: `tries`, which is longer than an agent's restart
    takes; `elsewhere` where somebody else is known to have it, too."""

    tries: int = 8
    elsewhere: int = 4
    pace: Pace = _PACE


PATIENT = Patience()


class Peers:
    """Thread safe; the same checkpoint is fetched once however many ask."""

    def __init__(
        self,
        store: Store,
        credentials: Callable[[], grpc.ChannelCredentials],
        address_of: Channels,
        clock: Clock,
        patience: Patience = PATIENT,
    ) -> None:
        """`credentials` are the agents' client certificate, asked for at each connection."""
        self._store, self._clock, self._patience = store, clock, patience
        self._credentials, self._address_of = credentials, address_of

    def fetch(
        self,
        wanted: Wanted,
        node: NodeName,
        told: Tell = lambda _: None,
        cancelled: threading.Event | None = None,
        *,
        elsewhere: bool = False,
        use: Use | None = None,
    ) -> Sealed:
        """It, verified, on this node; one that is here already is verified and answered, and
        replaced where it is damaged, once a good one has come. It is used meanwhile. Where it can
        be had `elsewhere` too, a peer that does not answer is given up soon.

        Raises Unusable, NoRoom, NotSealed, Cancelled, PeerAway (after several tries).
        """
        course = Course(self._clock, fetching.telling(told), cancelled)
        with self._store.alone(wanted.namespace, wanted.name):
            there = fetching.here_already(self._store, wanted, use)
            return there or self._fetched(wanted, node, course, use, elsewhere=elsewhere)

    def _fetched(
        self, wanted: Wanted, node: NodeName, course: Course, use: Use | None, *, elsewhere: bool
    ) -> Sealed:
        began, patience = self._clock.monotonic(), self._patience
        peer = Peer(self._address_of(node), self._credentials)
        tries = patience.elsewhere if elsewhere else patience.tries
        far = Retrying(peer, self._clock, course.ended, tries=tries, pace=patience.pace)
        try:
            sealed, came = fetching.fetch(far, self._store, wanted, course, use)
        except Ended as ended:
            raise Cancelled(str(ended)) from ended
        except (BadKeys, Denied, Faulty) as problem:
            raise PeerAway(str(problem)) from problem
        except PeerAway:
            raise
        except Retry as away:
            if course.ended.is_set():
                raise Cancelled("it was called off") from away
            raise PeerAway(str(away)) from away
        finally:
            peer.close()
        get_logger().info(
            "checkpoint fetched", checkpoint=wanted.name, node=node, bytes=came,
            seconds=round(self._clock.monotonic() - began, 3),
        )  # fmt: skip
        return sealed
