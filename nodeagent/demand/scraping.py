"""
Where a workload's own program tells of itself, and its text, from inside its pod's network.

Called by: `engine`. Rule: the connection comes from an address by which it is known as ours, so
that reading neither wakes a workload nor keeps it busy.
"""

from collections.abc import Callable

from kybernate.model.engines import Engines
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import Endpoint, Workload
from nodeagent.lives.life import Life
from nodeagent.probing import web
from nodeagent.probing.limit import Limit
from nodeagent.probing.netns import Network, Process, connect

_WITHIN_S = 2.0
_MOST = 4 * 2**20  # bytes of an answer


class NotKnown(Exception):
    """Whether it tells anything cannot be said now."""


class Endpoints:
    """By the pod's word, else by policy's for its class."""

    def __init__(
        self,
        pod_of: Callable[[WorkloadKey], Workload | None],
        pods_known: Callable[[], bool],
        engines: Callable[[], Engines],
    ) -> None:
        self._pod_of, self._pods_known, self._engines = pod_of, pods_known, engines
        self._told: dict[str, Endpoint | None] = {}  # by life: a pod's word does not change

    def of(self, life: Life) -> Endpoint | None:
        """None where it tells nothing. Raises NotKnown: an agent that just started has not heard of
        its pod, and it may well tell."""
        pod = self._pod_of(life.key)
        if pod is not None and pod.uid == life.record.uid:
            self._told = {**self._told, life.id: pod.wishes.metrics}
        if life.id not in self._told and not self._pods_known():
            raise NotKnown("the API server has not told of its pod yet")
        usual = self._engines().at.get(life.record.terms.workload_class)
        return self._told.get(life.id) or usual

    def forget(self, life_ids: set[str]) -> None:
        """Keep only of these lives what is remembered."""
        self._told = {one: kept for one, kept in self._told.items() if one in life_ids}


class Pages:
    """What programs answer. Thread safe."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def text(self, life: Life, endpoint: Endpoint) -> str:
        """Raises OSError."""
        limit = Limit(_WITHIN_S)
        process = Process(life.record.pid, life.record.pid_started)
        line = connect(
            self._network, process, "127.0.0.1", endpoint.port, limit.left(), unseen=True
        )
        return web.text(line, endpoint.port, endpoint.path, limit, _MOST)
