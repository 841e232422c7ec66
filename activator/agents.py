"""
The agents of all nodes: what they tell of their pods, what they are asked, what they are told.

Called by: `watching` (where they are), `wakes` (activate), `queues` (something is in flight). One
thread follows each agent's Watch; what it hears goes to the catalog, in the loop's thread. Rules:
one who is away is tried again with pauses that grow, and his last word is dropped; in-flight counts
are told at once when a model's become or cease to be, and renewed while there are any.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from activator.catalog import Catalog, Word
from activator.models import Place
from kybernate.clients import reaching
from kybernate.clients.agents import Agent, AgentAway, AgentRefused, End, Outcome, Progress
from kybernate.clients.backoff import Backoff, Pace
from kybernate.model.ids import WorkloadKey
from kybernate.runtime.logs import get_logger
from kybernate.runtime.tls import TlsFiles

WAKES = 64  # at once; more wait for a thread
WITHIN_S = 600.0  # a wake's own end; whoever waits for it has a shorter one
RENEW_S = 3.0
TOGETHER_S = 0.02  # what begins and ends within this is told together: short requests need no call
VALID_S = 10.0  # a report that is not renewed is forgotten after this
_PACE = Pace(first=0.1, longest=2.0)

Counts = dict[tuple[WorkloadKey, str], int]
Make = Callable[[str], Agent]


def in_cluster(folder: Path) -> Make:
    """Agents at their addresses, by our certificate; a new one serves from the next connection."""
    files = TlsFiles(folder)
    return lambda address: Agent.in_cluster(
        address, files.grpc_channel_credentials(), reaching.SERVER
    )


class Link:
    """One node's agent. `heard` while its Watch is open."""

    def __init__(self, node: str, agent: Agent, post: Callable[..., object], catalog: Catalog):
        self.node, self.agent, self.heard = node, agent, False
        self._post, self._catalog = post, catalog
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"agent-{node}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; its calls are cancelled."""
        self._stop.set()
        self.agent.close()

    def _follow(self) -> None:
        log = get_logger(node=self.node)
        pauses = Backoff(_PACE)
        while not self._stop.is_set():
            try:
                for progress in self.agent.watch():
                    if not self.heard:
                        log.info("agent is heard")
                    self.heard = True
                    pauses.reset()
                    self._post(self._catalog.told, progress.key, _word(progress))
            except (AgentAway, AgentRefused, ValueError) as problem:  # ValueError: we closed it
                if self.heard and not self._stop.is_set():
                    log.warning("agent is not heard", detail=str(problem))
            self.heard = False
            self._post(self._catalog.silent, self.node)
            self._stop.wait(pauses.next())


class Agents:
    """All of them. `counts` answers what is in flight on each node, in the loop's thread."""

    def __init__(
        self,
        catalog: Catalog,
        make: Make,
        identity: str,
        counts: Callable[[], dict[str, Counts]],
    ) -> None:
        self._catalog, self._make, self._identity, self._counts = catalog, make, identity, counts
        self._loop = asyncio.get_running_loop()
        self._links: dict[str, tuple[str, Link]] = {}
        self._wakes = ThreadPoolExecutor(WAKES, thread_name_prefix="wake")
        self._dirty = asyncio.Event()
        self._told: dict[str, bool] = {}  # nodes that were told of something in flight
        self._log = get_logger()

    def at(self, node: str, address: str) -> None:
        """Where this node's agent is now; an empty address: nowhere."""
        known = self._links.get(node)
        if known is not None and known[0] == address:
            return
        if known is not None:
            del self._links[node]
            known[1].stop()
        if address:
            link = Link(node, self._make(address), self._post, self._catalog)
            self._links[node] = (address, link)

    def away(self, node: str) -> bool:
        """Whether nobody is heard there."""
        known = self._links.get(node)
        return known is None or not known[1].heard

    def activating(
        self, place: Place, told: Callable[[Progress], None], end: End
    ) -> "asyncio.Future[Outcome]":
        """Have it in VRAM. `told` hears the way there, in the loop's thread. Raises AgentAway,
        AgentRefused. With `end` it is not followed any more; what was asked stays wanted there."""
        known = self._links.get(place.node)
        if known is None:
            future: asyncio.Future[Outcome] = self._loop.create_future()
            future.set_exception(AgentAway(f"no agent has reported from node {place.node}"))
            return future
        agent = known[1].agent
        progress = agent.activating(place.key, WITHIN_S, place.uid, end=end)
        return self._loop.run_in_executor(self._wakes, self._activate, progress, told)

    def changed(self) -> None:
        """What is in flight somewhere began or ended: it is told at once."""
        self._dirty.set()

    async def report(self) -> None:
        """Tell agents what is in flight, for as long as this runs."""
        while True:
            try:
                async with asyncio.timeout(RENEW_S):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(TOGETHER_S)
            self._dirty.clear()
            counts = self._counts()
            nodes = [node for node in self._links if counts.get(node) or self._told.get(node)]
            reports = [self._report(node, counts.get(node, {})) for node in nodes]
            await asyncio.gather(*reports)

    def close(self) -> None:
        """End all calls."""
        for _, link in self._links.values():
            link.stop()
        self._links.clear()
        self._wakes.shutdown(wait=False, cancel_futures=True)

    async def _report(self, node: str, counts: Counts) -> None:
        link = self._links[node][1]
        if not link.heard:
            return
        self._told[node] = bool(counts)
        try:
            await self._loop.run_in_executor(None, self._send, link.agent, counts)
        except (AgentAway, AgentRefused, ValueError) as problem:
            self._log.info("in flight: not told", node=node, detail=str(problem))

    def _send(self, agent: Agent, counts: Counts) -> None:
        agent.report_demand(self._identity, counts, VALID_S)

    def _activate(self, steps: Iterator[Progress], told: Callable[[Progress], None]) -> Outcome:
        for progress in steps:
            if progress.outcome is not None:
                return progress.outcome
            self._post(told, progress)
        raise AgentAway("the agent ended its answer without an outcome")

    def _post(self, what: Callable[..., object], *given: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *given)


def _word(progress: Progress) -> Word:
    return Word(uid=progress.uid, state=progress.state, why=progress.message)
