"""
One request on its way: held in a queue, sent to a pod of its model, answered.

Called by: `desk` (begins it), `queues` (releases or refuses it), `upstream` (tells how it went).
Rules: it is sent to pods of its own model only; a request of which nothing was answered is sent
again where that is safe: when it never left us, or when it is repeatable; else its client is told.
A model that was just brought in or started may not listen yet: it is tried again, with pauses that
grow, until the request's own time is over.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from activator import messages
from activator.front import Front
from activator.messages import Header, Request
from activator.models import Model, Place
from activator.pool import Pool
from activator.upstream import Upstream

if TYPE_CHECKING:
    from activator.queues import Queue

CONNECT_S = 3.0
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Exchange:
    """`tier` is where the model was when the request came; `waited` seconds it was held."""

    def __init__(self, front: Front, request: Request, target: bytes, queue: "Queue") -> None:
        self.front, self.request, self.queue = front, request, queue
        self._target = target
        self.arrived = asyncio.get_running_loop().time()
        self.tier = ""
        self.waited = 0.0
        self.more: tuple[Header, ...] = ()
        self.timer: asyncio.TimerHandle | None = None
        self.place: Place | None = None  # where it is sent
        self._task: asyncio.Task[None] | None = None
        self.over = False

    def send(self, place: Place, pool: Pool) -> None:
        """To this pod of its model, now."""
        if self.timer is not None:
            self.timer.cancel()
        self.more = (
            (b"X-Kyb-Model", str(self.queue.id).encode()),
            (b"X-Kyb-Tier", self.tier.encode()),
            (b"X-Kyb-Waited", b"%.3f" % self.waited),
        )
        idle = pool.take(place)
        if idle is not None:
            self._carry(idle, place)
        else:
            self._task = asyncio.get_running_loop().create_task(self._connect(pool))

    def leave(self) -> None:
        """The client has gone."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self.front.carrying is not None:
            self.front.carrying.let_go()

    def refuse(self, status: int, why: str, code: str, retry_after: int = 0) -> None:
        """An answer of our own."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        more = ((b"Retry-After", b"%d" % retry_after),) if retry_after else ()
        self.front.answer(status, messages.error_body(status, why, code), more=more)

    # `upstream` calls these

    def carried(self, upstream: Upstream) -> None:
        """Answered, to the end."""
        self.over = True
        place = self.place
        assert place is not None
        if upstream.reusable:
            self.queue.pool.keep(place, upstream)
        elif not upstream.lost:
            upstream.close()
        front = self.front
        self.queue.answered(self)
        front.done()

    def failed(self, upstream: Upstream, why: str) -> None:
        """Nothing was answered."""
        self.front.carrying = None
        if not upstream.fresh and self.request.repeatable:
            self._task = asyncio.get_running_loop().create_task(self._connect(self.queue.pool))
            return
        words = f"{self.queue.id} was asked and did not answer: {why}"
        self.queue.failed(self, 502, words, "no_answer")

    # within

    def _carry(self, upstream: Upstream, place: Place) -> None:
        self.queue.at(self, place)
        upstream.carry(self, messages.request_bytes(self.request, self._target))

    async def _connect(self, pool: Pool) -> None:
        """Until it listens, or the time is over. Whichever pod of its model serves by then."""
        why: object = ""
        for pause in self._pauses():
            place = self.queue.place() or self.place
            assert place is not None
            try:
                upstream = await pool.connect(place, CONNECT_S)
            except (OSError, TimeoutError) as problem:
                why = problem or "it took too long"
                await asyncio.sleep(pause)
            else:
                self._carry(upstream, place)
                return
        words = f"{self.queue.id} has its GPU and does not listen: {why}"
        self.queue.failed(self, 503, words, "model_not_ready")

    def _pauses(self) -> "Pauses":
        return Pauses(asyncio.get_running_loop().time, self.arrived + self.queue.limits.hold)


class Pauses:
    """Growing pauses until a deadline, at least one. An iterator."""

    def __init__(self, now: Callable[[], float], deadline: float) -> None:
        self._now, self._deadline = now, deadline
        self._index = -1

    def __iter__(self) -> "Pauses":
        return self

    def __next__(self) -> float:
        if self._index >= 0 and self._now() >= self._deadline:
            raise StopIteration
        self._index += 1
        return _PAUSES[min(self._index, len(_PAUSES) - 1)]


def place_of(model: Model, turn: int) -> Place | None:
    """The pod whose turn it is, of those that serve."""
    serving = model.serving
    return serving[turn % len(serving)] if serving else None
