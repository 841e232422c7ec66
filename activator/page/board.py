"""
What the page shows, kept as it happens: who is active where, who waits, where requests found their
models, how long they waited.

Called by: the front (requests) and the watches (places, cards); read by whoever streams. Thread
safe, nothing here waits. Times are seconds since the board was made.
Rule: bounded: `SPAN_S` of lanes, the last `KEPT` waits, whatever happens.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SPAN_S = 120.0  # what the page's lanes show
KEPT = 2000  # waits, for the percentiles
KEPT_OF_ONE = 500
MOST_SPANS = 2000  # of one lane
TIERS = ("vram", "ram", "nvme", "object", "none")
_ACTIVE, _MOVING = "active", "moving"
_KINDS = {"Active": _ACTIVE, "Activating": _MOVING, "Parking": _MOVING}
_Lane = tuple[str, int]


@dataclass(slots=True)
class _Spell:
    """A model on a card. `until` is None while it lasts."""

    model: str
    kind: str
    began: float
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How a pod stands. `state` is a word of `model.workload.State`, `vram` bytes."""

    state: str
    node: str = ""
    gpus: tuple[int, ...] = ()
    tier: str = ""
    vram: int = 0
    why: str = ""


@dataclass(slots=True)
class _Model:
    held: int = 0
    running: int = 0
    requests: int = 0
    answered: int = 0
    turned_away: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_OF_ONE))
    places: dict[str, Place] = field(default_factory=dict)
    parked_in: str = ""

    def coming_from(self) -> str:
        """Where its contents are while they move."""
        moves = any(place.state in _KINDS for place in self.places.values())
        return self.parked_in or "ram" if moves else "none"


class Board:
    """See the module's text."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._lanes: dict[_Lane, deque[_Spell]] = {}
        self._cards: dict[_Lane, dict[str, Any]] = {}
        self._waits: deque[float] = deque(maxlen=KEPT)
        self._turned: Counter[int] = Counter()
        self._switches = 0
        self._version = 0

    @property
    def version(self) -> int:
        """Goes up with every change."""
        return self._version

    def changed(self, since: int) -> bool:
        """Whether there is more to tell than what was told as version `since`."""
        return self._version != since

    # requests

    def arrived(self, model: str, tier: str) -> None:
        """A request came; `tier` is where the model's contents were at that moment. Of one on its
        way in or out that is where it was parked last; without a pod it is `none`."""
        with self._changing():
            one = self._model(model)
            one.requests += 1
            one.held += 1
            one.hits[tier if tier in TIERS else one.coming_from()] += 1

    def let_through(self, model: str, waited: float) -> None:
        """It goes on to the model, after so many seconds."""
        with self._changing():
            one = self._model(model)
            one.held -= 1
            one.running += 1
            one.waits.append(waited)
            self._waits.append(waited)

    def answered(self, model: str) -> None:
        """Its answer is complete."""
        with self._changing():
            one = self._model(model)
            one.running -= 1
            one.answered += 1

    def turned_away(self, model: str, status: int) -> None:
        """It ended otherwise: 429, 503, 499 for a client that left. It was held, or running."""
        with self._changing():
            one = self._model(model)
            if one.held:
                one.held -= 1
            elif one.running:
                one.running -= 1
            one.turned_away += 1
            self._turned[status] += 1

    # what stands

    def placed(self, model: str, place: Place, pod: str = "") -> None:
        """A pod of the model stands so from now on. Without `pod` the model has one."""
        with self._changing():
            one = self._model(model)
            before = one.places.get(pod)
            one.places[pod] = place
            if place.state == "Parked" and place.tier in TIERS:
                one.parked_in = place.tier
            self._follow(model, before, place)

    def gone(self, model: str, pod: str = "") -> None:
        """That pod is no more."""
        with self._changing():
            before = self._model(model).places.pop(pod, None)
            self._follow(model, before, None)

    def card(self, node: str, index: int, product: str, memory: int, used: int) -> None:
        """A GPU; bytes."""
        with self._changing():
            self._lanes.setdefault((node, index), deque(maxlen=MOST_SPANS))
            self._cards[node, index] = {"product": product, "memory": memory, "used": used}

    # to be shown

    def snapshot(self) -> dict[str, Any]:
        """Everything, as JSON would have it."""
        with self._lock:
            now = self._now()
            return {
                "version": self._version,
                "now": round(now, 3),
                "span": SPAN_S,
                "counts": self._counts(),
                "hits": self._hits(),
                "wait": percentiles(self._waits),
                "switches": self._switches,
                "lanes": [self._lane(lane, now) for lane in sorted(self._lanes)],
                "models": [self._row(name) for name in sorted(self._models)],
            }

    def _counts(self) -> dict[str, Any]:
        names = ("requests", "answered", "held", "running", "turned_away")
        models = self._models.values()
        sums: dict[str, Any] = {n: sum(getattr(one, n) for one in models) for n in names}
        return {**sums, "by_status": {str(k): n for k, n in sorted(self._turned.items())}}

    def _hits(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for one in self._models.values():
            total.update(one.hits)
        return {tier: total[tier] for tier in TIERS}

    def _lane(self, lane: _Lane, now: float) -> dict[str, Any]:
        spells = [one for one in self._lanes[lane] if one.until is None or one.until > now - SPAN_S]
        return {
            "node": lane[0],
            "gpu": lane[1],
            **self._cards.get(lane, {"product": "", "memory": 0, "used": 0}),
            "spans": [
                {
                    "model": one.model,
                    "kind": one.kind,
                    "from": round(one.began, 3),
                    "to": None if one.until is None else round(one.until, 3),
                }
                for one in spells
            ],
        }

    def _row(self, name: str) -> dict[str, Any]:
        one = self._models[name]
        places = sorted(one.places.values(), key=lambda place: place.state != "Active")
        first = places[0] if places else Place(state="Absent", tier="none")
        return {
            "name": name,
            "state": first.state,
            "tier": first.tier,
            "node": first.node,
            "gpus": list(first.gpus),
            "vram": first.vram,
            "why": first.why,
            "pods": len(places),
            "held": one.held,
            "running": one.running,
            "requests": one.requests,
            "answered": one.answered,
            "turned_away": one.turned_away,
            "hits": {tier: one.hits[tier] for tier in TIERS},
            "wait": percentiles(one.waits),
        }

    # inside

    def _follow(self, model: str, before: Place | None, after: Place | None) -> None:
        """The lanes, where what a model does on a card has changed."""
        was, now_is = _on_cards(before), _on_cards(after)
        if was == now_is:
            return
        now = self._now()
        for lane, kind in was.items():
            if now_is.get(lane) != kind:
                self._end(lane, model, now)
        for lane, kind in now_is.items():
            if was.get(lane) != kind:
                spells = self._lanes.setdefault(lane, deque(maxlen=MOST_SPANS))
                spells.append(_Spell(model, kind, now))
        if before is not None and _ACTIVE in now_is.values() and _ACTIVE not in was.values():
            self._switches += 1

    def _end(self, lane: _Lane, model: str, now: float) -> None:
        for spell in reversed(self._lanes.get(lane, ())):
            if spell.model == model and spell.until is None:
                spell.until = now
                return

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model())

    def _now(self) -> float:
        return self._clock() - self._began

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            self._version += 1
            yield


def _on_cards(place: Place | None) -> dict[_Lane, str]:
    kind = _KINDS.get(place.state) if place else None
    if place is None or kind is None:
        return {}
    return {(place.node, gpu): kind for gpu in place.gpus}


def percentiles(waits: Iterable[float]) -> dict[str, float | int]:
    """Seconds; `count` of how many. Zeros of nothing."""
    ordered = sorted(waits)
    count = len(ordered)
    if not count:
        return {"count": 0, "p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}

    def at(share: float) -> float:
        return round(ordered[min(count - 1, int(share * count))], 4)

    return {
        "count": count, "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0),
    }  # fmt: skip
