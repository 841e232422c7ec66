"""
The requests of one model: those held until it serves, in their order, and those under way.

Called by: `desk` (new ones), `exchange` (ends), `wakes` (what became of the model). Rules: held
requests are bounded in number and time; they are sent in the order in which they came, and none
overtakes; nothing wakes a model for which nobody waits any more.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from activator.exchange import Exchange, place_of
from activator.figures import Figures
from activator.models import Activate, Model, ModelId, Place, next_step
from activator.pool import Pool
from kybernate.model.ids import PodUid

LEFT = 499  # what the page calls a client that left, as nginx does


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be held: requests of one model, and for how many seconds."""

    requests: int
    hold: float


@dataclass(eq=False)
class Queue:
    """`look` answers how the model is now. `changed` is set whenever a wake should look again."""

    id: ModelId
    name: str  # as clients call it
    look: Callable[[], Model | None]
    pool: Pool
    limits: Limits
    figures: Figures
    wake: Callable[["Queue"], None]
    counted: Callable[["Queue"], None]
    held: deque[Exchange] = field(default_factory=deque)
    under_way: set[Exchange] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""  # what a wake waits for, in words
    seconds_left: float = 0.0  # by its agent's estimate
    waking: "asyncio.Task[None] | None" = None
    taken: int = 0  # requests so far
    _at: Counter[PodUid] = field(default_factory=Counter)
    _turn: int = 0

    @property
    def in_flight(self) -> int:
        """Requests that are not answered, held ones included."""
        return len(self.held) + len(self.under_way)

    def counts(self) -> dict[Place, int]:
        """What is in flight, by the pod it is at; what is held is at the one that is to come."""
        found: Counter[Place] = Counter(
            exchange.place for exchange in self.under_way if exchange.place is not None
        )
        model = self.look()
        step = next_step(model) if model is not None and self.held else None
        if isinstance(step, Activate):
            found[step.place] += len(self.held)
        return found

    @property
    def retry_after(self) -> int:
        """Seconds after which to ask again."""
        return max(1, round(self.seconds_left + 0.5))

    def place(self) -> Place | None:
        """A pod that serves now, each in turn."""
        model = self.look()
        self._turn += 1
        return place_of(model, self._turn) if model is not None else None

    def take(self, exchange: Exchange, model: Model) -> None:
        """A new request: sent at once where the model serves and nobody stands before it."""
        exchange.tier = model.tier
        self.taken += 1
        self.figures.board.arrived(self.name, exchange.tier)
        place = None if self.held else self.place()
        if place is not None:
            self._send(exchange, place)
        elif len(self.held) >= self.limits.requests:
            self._full(exchange, f"{len(self.held)} requests wait for {self.id} already")
        else:
            self._hold(exchange)

    def release(self) -> None:
        """Send what is held, in its order; called when the model serves."""
        while self.held:
            place = self.place()
            if place is None:
                return
            exchange = self.held.popleft()
            exchange.waited = asyncio.get_running_loop().time() - exchange.arrived
            self._send(exchange, place)

    def at(self, exchange: Exchange, place: Place | None) -> None:
        """It is at this pod now, or at none; agents are told where that begins or ends."""
        before = exchange.place
        exchange.place = place
        if before is not None:
            self._at[before.uid] -= 1
        if place is not None:
            self._at[place.uid] += 1
        begun = place is not None and self._at[place.uid] == 1
        ended = before is not None and not self._at[before.uid]
        if ended and before is not None:
            del self._at[before.uid]
        if begun or ended:
            self.counted(self)

    def refuse_all(self, why: str) -> None:
        """Nobody will bring it in."""
        while self.held:
            self._refuse_held(self.held[0], why, "model_unavailable")

    def left(self, exchange: Exchange) -> None:
        """Its client has gone."""
        self.figures.left += 1
        self.figures.board.turned_away(self.name, LEFT)
        self._drop(exchange)
        exchange.leave()

    def answered(self, exchange: Exchange) -> None:
        """It has its answer."""
        now = asyncio.get_running_loop().time()
        self.figures.answered(self.name, exchange.tier, exchange.waited, now - exchange.arrived)
        self._drop(exchange)

    def failed(self, exchange: Exchange, status: int, why: str, code: str) -> None:
        """Its model did not answer it."""
        self._drop(exchange)
        self._turn_away(exchange, status, why, code)

    def _send(self, exchange: Exchange, place: Place) -> None:
        self.under_way.add(exchange)
        self.figures.board.let_through(self.name, exchange.waited)
        self.at(exchange, place)
        exchange.send(place, self.pool)

    def _hold(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        self.held.append(exchange)
        exchange.timer = loop.call_later(self.limits.hold, partial(self._late, exchange))
        self.counted(self)
        self.wake(self)

    def _late(self, exchange: Exchange) -> None:
        words = f"{self.id} did not come within {self.limits.hold:g} s: {self.why or 'no reason'}"
        self._refuse_held(exchange, words, "model_not_ready")

    def _refuse_held(self, exchange: Exchange, why: str, code: str) -> None:
        self._drop(exchange)
        self._turn_away(exchange, 503, why, code)

    def _full(self, exchange: Exchange, why: str) -> None:
        self._turn_away(exchange, 429, why, "too_many_waiting")

    def _turn_away(self, exchange: Exchange, status: int, why: str, code: str) -> None:
        self.figures.refused(str(status))
        self.figures.board.turned_away(self.name, status)
        exchange.refuse(status, why, code, self.retry_after if status != 502 else 0)

    def _drop(self, exchange: Exchange) -> None:
        """Neither held nor under way any more."""
        if exchange in self.under_way:
            self.under_way.discard(exchange)
            self.at(exchange, None)
            if not self.in_flight:
                self.changed.set()  # a wake with nobody left ends
        elif exchange in self.held:
            self.held.remove(exchange)
            if not self.held:
                self.counted(self)
                self.changed.set()
