"""
The signal of a workload's own program: requests that run or wait in a server (as vLLM tells them),
and the steps of a training program, from its metrics in Prometheus' text.

Read through `gathering`. What the numbers are called is policy's data (`metrics.json`), where they
are told is the pod's word (`kyb.ai/metrics`) or policy's for its class. Rule: a program that should
tell and does not is in doubt: nobody takes it for idle. Rule: what it says is anybody's input,
bounded in size and time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite

from prometheus_client.parser import text_string_to_metric_families

from kybernate.clients.clock import Clock
from kybernate.model.demand import SILENT, Demand
from kybernate.model.engines import Engines
from kybernate.model.workload import Endpoint
from nodeagent.demand.lately import Counts
from nodeagent.demand.scraping import Endpoints, NotKnown
from nodeagent.lives.life import Life

# A step that takes so many times its usual time has not come, rather than being under way.
_LATE = 3.0
_LEAST_S = 2.0  # metrics are looked at every second


class NotTold(Exception):
    """The program tells nothing that policy's data names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What it tells now. None: it does not tell that."""

    requests: float | None = None
    steps: float | None = None


class Engine:
    """A slow signal. `fetch` gets the text, raising OSError."""

    name = "engine"

    def __init__(
        self,
        fetch: Callable[[Life, Endpoint], str],
        endpoints: Endpoints,
        engines: Callable[[], Engines],
        clock: Clock,
    ) -> None:
        self._fetch, self._endpoints, self._engines = fetch, endpoints, engines
        self._clock = clock
        self._steps = Counts()
        self._busy_at: dict[str, float] = {}

    def concerns(self, life: Life) -> bool:
        """As the port says: whether it tells anything anywhere, or may do so."""
        try:
            return self._endpoints.of(life) is not None
        except NotKnown:
            return True

    def read(self, life: Life) -> Demand:
        """As the port says. Raises OSError, NotKnown, NotTold, ValueError."""
        endpoint = self._endpoints.of(life)
        if endpoint is None:
            return SILENT
        told = numbers(self._fetch(life, endpoint), self._engines())
        if told.steps is None and told.requests is None:
            raise NotTold(f"port {endpoint.port}{endpoint.path} tells no requests and no steps")
        now = self._clock.monotonic()
        requests, steps = self._serving(life, told.requests, now), self._training(life, told, now)
        if requests is None or steps is None:
            return requests or steps or SILENT
        return requests if requests.busy or not steps.busy else steps

    def forget(self, life_ids: set[str]) -> None:
        """As the port says."""
        self._endpoints.forget(life_ids)
        self._steps.forget(life_ids)
        self._busy_at = {one: at for one, at in self._busy_at.items() if one in life_ids}

    def _serving(self, life: Life, requests: float | None, now: float) -> Demand | None:
        if requests is None:
            return None
        count = round(requests)
        since = self._busy_at.setdefault(life.id, now)
        if not count:
            return Demand(in_flight=0, idle_for=now - since)
        self._busy_at[life.id] = now
        plural = "" if count == 1 else "s"
        why = f"its server has {count} request{plural}"
        return Demand(busy=True, in_flight=count, idle_for=0.0, why=why)

    def _training(self, life: Life, told: Numbers, now: float) -> Demand | None:
        if told.steps is None:
            return None
        lately = self._steps.seen(life.id, told.steps, now)
        still = lately.still_for(now)
        if lately.usual is None:
            return Demand(doubt=True, why="its first step is still to come")
        if still <= max(_LEAST_S, _LATE * lately.usual):
            rate = 1.0 / lately.usual if lately.usual > 0 else 0.0
            return Demand(busy=True, idle_for=0.0, why=f"it trains, {rate:.2g} steps a second")
        return Demand(idle_for=still)


def numbers(text: str, engines: Engines) -> Numbers:
    """What a program's metrics tell of requests and steps: all series of the known names, added up.
    Raises ValueError where such a line cannot be read."""
    known = engines.requests | engines.steps
    lines = [line for line in text.splitlines() if _name(line) in known]  # a page may have MiB
    return Numbers(requests=_sum(lines, engines.requests), steps=_sum(lines, engines.steps))


def _sum(lines: Iterable[str], names: frozenset[str]) -> float | None:
    values = list(_values(line for line in lines if _name(line) in names))
    if not all(isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"a metric of {', '.join(sorted(names))} is no count")
    return sum(values) if values else None


def _name(line: str) -> str:
    return line.partition("{")[0].strip().partition(" ")[0]


def _values(lines: Iterable[str]) -> Iterable[float]:
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            yield float(sample.value)
