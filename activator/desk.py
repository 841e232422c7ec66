"""
Where requests arrive: each is told what it asks for, and goes to its model's queue or is refused.

Called by: `front`, for every request; `process` (sweeps). Rules: `GET /v1/models` is ours, all else
belongs to a model; what names none, or one that is not there, is told which there are.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import orjson

from activator import messages
from activator.catalog import Ambiguous, Catalog, Unknown
from activator.exchange import Exchange
from activator.figures import Figures
from activator.front import Front
from activator.memory import Memory
from activator.messages import Request
from activator.models import Model, ModelId
from activator.queues import Queue
from activator.routing import Nothing, Routing

SWEEP_S = 1.0
KEEP_ALIVE_S = 120.0  # an idle client, longer than what calls us keeps its own connections
LINGER_S = 2.0  # somebody who was turned away and still sends
_SHOWN = 50  # models that a 404 names


class Queues(Protocol):
    """The queues, one for each model."""

    def of(self, model: ModelId) -> Queue:
        """This model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Most:
    """Bytes of a body and of all bodies, clients, seconds for a request to arrive."""

    body: int
    memory: int
    connections: int
    read_within: float


class Desk:
    """One for all clients. In the loop's thread."""

    def __init__(
        self,
        catalog: Catalog,
        queues: Queues,
        routing: Routing,
        figures: Figures,
        most: Most,
    ) -> None:
        self._catalog, self._queues, self._routing = catalog, queues, routing
        self._figures = figures
        self.most_body, self.memory = most.body, Memory(most.memory)
        self._most_fronts, self._read_within = most.connections, most.read_within
        self._fronts: set[Front] = set()
        self._loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = self._loop.time
        self.closing = False

    def __len__(self) -> int:
        return len(self._fronts)

    def arrived(self, front: Front) -> bool:
        """Whether it may stay."""
        if len(self._fronts) >= self._most_fronts or self.closing:
            self._figures.refused("connection")
            return False
        self._fronts.add(front)
        return True

    def left(self, front: Front) -> None:
        """It is gone; nobody waits for what it asked for."""
        self._fronts.discard(front)
        exchange, front.exchange = front.exchange, None
        if isinstance(exchange, Exchange) and not exchange.over:
            exchange.queue.left(exchange)

    def take(self, front: Front, request: Request) -> None:
        """A whole request."""
        if self.closing:
            request.keep = False
        path = request.target.partition(b"?")[0]
        if path == b"/v1/models" and request.method in (b"GET", b"HEAD"):
            front.answer(200, self._models())
            return
        meant = self._routing.meant(request.target, request.host, request.body)
        if isinstance(meant, Nothing):
            self._refuse(front, 404, f"{meant.why}; {self._known()}", "no_model_named")
            return
        model = self._catalog.find(meant.name)
        if isinstance(model, Model):
            self._pass_on(front, request, model, meant.target)
        elif isinstance(model, Unknown):
            words = f"no model is called {meant.name[:200]!r}; {self._known()}"
            self._refuse(front, 404, words, "model_not_found")
        else:
            assert isinstance(model, Ambiguous)
            words = f"several models are called {meant.name!r}: {', '.join(model.among)}"
            self._refuse(front, 404, words, "model_ambiguous")

    def sweep(self) -> None:
        """Let go of clients that say nothing. Called every `SWEEP_S`."""
        now = self.now()
        for front in list(self._fronts):
            quiet = now - front.since
            if front.lingers and quiet > LINGER_S:
                front.transport.abort()
            elif front.reading and front.request is None and quiet > self._read_within:
                front.late()
            elif front.idle and quiet > KEEP_ALIVE_S:
                front.close()

    def close_idle(self) -> None:
        """Whoever asks nothing now is let go; called while we end."""
        self.closing = True
        for front in list(self._fronts):
            if front.idle:
                front.close()

    def drop(self) -> None:
        """Whoever is still there is let go in the middle."""
        for front in list(self._fronts):
            front.transport.abort()

    def _pass_on(self, front: Front, request: Request, model: Model, target: bytes) -> None:
        if request.upgrade and request.upgrade != b"websocket":
            request.upgrade, request.keep = b"", False  # h2c: answered in HTTP/1.1, as it may be
        queue = self._queues.of(model.id)
        exchange = Exchange(front, request, target, queue)
        front.exchange = exchange
        queue.take(exchange, model)

    def _refuse(self, front: Front, status: int, why: str, code: str) -> None:
        self._figures.refused(str(status))
        front.answer(status, messages.error_body(status, why, code))

    def _known(self) -> str:
        names = self._catalog.names()
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"there are: {', '.join(names[:_SHOWN]) or 'none'}{more}"

    def _models(self) -> bytes:
        """As OpenAI's API lists them."""
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "kybernate"}
            for name in self._catalog.names()
        ]
        return orjson.dumps({"object": "list", "data": listed}) + b"\n"
