"""
The parts of the activator, put together. Called by: `__main__`.

One event loop carries the requests; watches, agents' streams and the metrics server have threads of
their own and speak to the loop only by `call_soon_threadsafe`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from ssl import SSLContext

from activator.admin import Admin
from activator.agents import Agents, Counts, Make
from activator.catalog import Catalog
from activator.desk import SWEEP_S, Desk, Most
from activator.figures import Figures
from activator.front import Front
from activator.models import ModelId
from activator.page import Board
from activator.pool import Pool
from activator.queues import Limits, Queue
from activator.routing import Routing
from activator.settings import Settings
from activator.telling import Telling
from activator.view import Json, view
from activator.wakes import Wakes
from activator.wanted import Ours, Wanted
from activator.watching import Scope, Watching
from kybernate.clients.kube import Kube
from kybernate.runtime import addresses, serving
from kybernate.runtime.clock import Clock
from kybernate.runtime.health import Health
from kybernate.runtime.metrics import Metrics
from kybernate.runtime.tls import TlsFiles

BACKLOG = 1024
GRACE_S = 20.0  # for requests under way at a stop; held ones are let go at once
MakeFront = Callable[[], Front]
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Process:
    """One activator, in a running loop. `start`, then `stop`."""

    def __init__(self, settings: Settings, kube: Kube, clock: Clock, make: Make) -> None:
        self._settings, self._kube, self._clock = settings, kube, clock
        self._loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.board = Board(clock.monotonic)
        self.figures = Figures(self.metrics, self.board)
        self.catalog = Catalog(self._changed)
        self._telling = Telling(self.board, self.catalog)
        self.queues: dict[ModelId, Queue] = {}
        self.pool = Pool(self._loop)
        self._limits = Limits(requests=settings.most_held, hold=settings.hold)
        ours = Ours(settings.namespace, settings.identity, settings.owner_uid)
        self._wanted = Wanted(kube, clock, ours)
        self.agents = Agents(self.catalog, make, settings.identity, self._counts)
        self._wakes = Wakes(self.catalog, self.agents, self._wanted)
        self._watching = Watching(kube, self.catalog, self.agents, self._telling, self._post)
        most = Most(
            body=settings.most_body,
            memory=settings.most_held_bytes,
            connections=settings.most_connections,
            read_within=settings.read_within,
        )
        routing = Routing(settings.host_suffix)
        self.desk = Desk(self.catalog, self, routing, self.figures, most)
        self.admin = Admin(self.view, self.board)
        self._servers: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._telemetry = serving.telemetry(settings.metrics_listen, self._health(), self.metrics)
        self._observe()

    async def start(self) -> None:
        """Listen, and watch. Raises OSError where an address is taken."""
        tls = TlsFiles(self._settings.tls_dir) if self._settings.tls_dir else None
        context = tls.server_context() if tls else None
        await self._listen(self._settings.listen, partial(Front, self.desk), context)
        await self._listen(self._settings.view_listen, partial(Front, self.admin), None)
        spaces = frozenset(self._settings.namespaces)
        self._watching.start(Scope(spaces, self._settings.model_port))
        self._wanted.start()
        self._telemetry.start()
        parts = (self.agents.report(), self.admin.tell(), self._sweep())
        self._tasks = [self._loop.create_task(part) for part in parts]

    async def stop(self) -> None:
        """Take nothing new, let what is under way end, refuse what is held: its client asks again,
        and another activator answers."""
        for server in self._servers:
            server.close()
        self.desk.close_idle()
        for queue in self.queues.values():
            queue.refuse_all("this activator ends; ask again")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while any(queue.in_flight for queue in self.queues.values()):
                    await asyncio.sleep(0.05)
        self.admin.close()
        self.desk.drop()
        self.pool.close()
        while self.admin or self.desk:  # until the loop has told them
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.run_in_executor(None, self._end_threads)

    def of(self, model: ModelId) -> Queue:
        """The queue of this model."""
        found = self.queues.get(model)
        if found is None:
            found = self.queues[model] = Queue(
                id=model,
                name=self._telling.name(model),
                look=lambda: self.catalog.models.get(model),
                pool=self.pool,
                limits=self._limits,
                figures=self.figures,
                wake=self._wakes.wake,
                counted=self._counted,
            )
        return found

    def view(self) -> Json:
        """What is known now."""
        return view(self.catalog, self.queues.values(), self.figures, self._clock.now())

    def _changed(self, model: ModelId) -> None:
        self._telling.model(model)
        queue = self.queues.get(model)
        if queue is not None:
            self._wakes.changed(queue)
            if model not in self.catalog.models and not queue.in_flight:
                del self.queues[model]

    def _counted(self, _: Queue) -> None:
        self.agents.changed()

    def _counts(self) -> dict[str, Counts]:
        """What is in flight, for each node."""
        found: dict[str, Counts] = {}
        for queue in self.queues.values():
            for place, count in queue.counts().items() if queue.in_flight else ():
                counts = found.setdefault(place.node, {})
                counts[place.key, place.uid] = counts.get((place.key, place.uid), 0) + count
        return found

    async def _listen(self, listen: str, make: MakeFront, context: SSLContext | None) -> None:
        host, port = addresses.parse_listen(listen)
        server = await self._loop.create_server(
            make, host or "", port, ssl=context, backlog=BACKLOG
        )
        for listening in server.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a client that is no
            for option, value in _KEEPALIVE:  # more there is noticed; accepted ones inherit it
                listening.setsockopt(socket.IPPROTO_TCP, option, value)
        self._servers.append(server)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.desk.sweep()
            self.pool.sweep()

    def _post(self, what: object, *given: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *given)  # type: ignore[arg-type]

    def _end_threads(self) -> None:
        self._wanted.stop()
        self._watching.stop()
        self.agents.close()
        self._telemetry.stop()
        self._kube.close()

    def _health(self) -> Health:
        health = Health()
        health.ready("watches", lambda: self._watching.unready)
        health.ready("ending", lambda: "it ends" if self.desk.closing else None)
        return health

    def _observe(self) -> None:
        measured = self.metrics
        measured.observed(
            "activator_held", "Requests that wait for a model", lambda: float(self._held())
        )
        measured.observed(
            "activator_connections", "Clients connected", lambda: float(len(self.desk))
        )
        measured.observed("activator_wakes_begun", "Wakes begun", lambda: float(self.figures.wakes))
        measured.observed(
            "activator_watch_broken_seconds",
            "How long the watch that is broken longest has been so",
            lambda: self._watching.broken_seconds,
        )

    def _held(self) -> int:
        return sum(len(queue.held) for queue in list(self.queues.values()))
