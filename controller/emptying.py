"""Has the object store collected now and then, by an agent, which has the store and its keys.

Called by: `process`. What no manifest names goes there after a grace time (`kybernate/ladder/
collecting.py`); the store itself remembers since when that is so, so nothing is remembered here but
when it was last done, and who leads next begins anew. Rule: several collectors do no harm, so
nobody is asked who else does it. Rule: an agent without a store says so, and the next one is asked.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from controller.duties import Duty
from kybernate.api.quantity import readable_bytes
from kybernate.clients import reaching
from kybernate.clients.agents import AgentAway, AgentRefused
from kybernate.clients.clock import Clock
from kybernate.clients.copies import Collected
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Reflector
from kybernate.clients.resources import GPUNODES
from kybernate.model.verdict import EventReason
from kybernate.runtime.logs import get_logger
from kybernate.runtime.metrics import Metrics

STORE = "store"  # the only key
FIRST = 600.0  # seconds from a leader's start: those who lead for less collect nothing
AGAIN = 3600.0  # until agents that could not are asked again
_SHOWN = 3  # domains that are left alone, in an event


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Seconds: how often (0: never), and how long a pack stays that no manifest names."""

    every: float
    grace: float


class Collector(Protocol):
    """Who collects."""

    def collect(self, node: str, grace: float) -> Iterator[Collected]:
        """Each domain of the store when it is done. Raises AgentAway, AgentRefused, ApiError."""
        ...


class AgentCollector:
    """The agents themselves, each where its GpuNode says."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def collect(self, node: str, grace: float) -> Iterator[Collected]:
        """As the port says."""
        with reaching.copies_of(self._kube, node) as copies:
            yield from copies.collect(grace)


class Emptying:
    """The leader has the store collected. `nodes` are those of agents."""

    def __init__(
        self,
        clock: Clock,
        terms: Terms,
        collector: Collector,
        nodes: Callable[[], Iterable[str]],
        events: EventRecorder,
    ) -> None:
        self._clock, self._terms, self._collector = clock, terms, collector
        self._nodes, self._events = nodes, events
        self._due: float | None = None
        self._at, self._bytes, self._packs, self._alone = 0.0, 0, 0, 0
        self.watches: tuple[Reflector[object], ...] = ()
        self.duty: Duty[str] = Duty("emptying", clock, self.look, lambda: (STORE,))
        self._log = get_logger(duty="emptying")

    def measure(self, metrics: Metrics) -> None:
        """What became of it."""
        observed = metrics.observed
        observed(
            "controller_store_collected_at",
            "When an agent last collected the store for us, seconds since the epoch; 0: never",
            lambda: self._at,
        )
        observed("controller_store_freed_bytes", "Of packs that went then", lambda: self._bytes)
        observed("controller_store_freed_packs", "Packs that went then", lambda: self._packs)
        observed(
            "controller_store_domains_left_alone",
            "Domains that the last one could not judge",
            lambda: self._alone,
        )

    def look(self, key: str) -> float | None:  # noqa: ARG002 - there is one
        """Collect where it is time; seconds until the next look. Raises ApiError."""
        if self._terms.every <= 0:
            return None
        now = self._clock.monotonic()
        if self._due is None:
            self._due = now + min(FIRST, self._terms.every)
        if now < self._due:
            return self._due - now
        wait = self._terms.every if self._collected() else min(AGAIN, self._terms.every)
        self._due = self._clock.monotonic() + wait
        return wait

    def _collected(self) -> bool:
        """By the first agent that can."""
        said = []
        for node in sorted(self._nodes()):
            try:
                self._by(node)
            except (AgentAway, AgentRefused) as no:
                said.append(f"{node}: {no}")
            else:
                return True
        self._log.info("store not collected", why="; ".join(said) or "there is no agent")
        return False

    def _by(self, node: str) -> None:
        done = []
        for one in self._collector.collect(node, self._terms.grace):
            if not self.duty.started:
                raise AgentAway("we do not lead any more")
            done.append(one)
        packs, size = sum(one.gone for one in done), sum(one.size for one in done)
        alone = [one for one in done if one.alone]
        self._at, self._alone = self._clock.now(), len(alone)
        self._packs, self._bytes = self._packs + packs, self._bytes + size
        self._log.info("store collected", node=node, domains=len(done), packs=packs, bytes=size)
        if packs:
            note = f"{packs} packs that nothing names went from the object store: "
            self._tell(node, EventReason.STORE_COLLECTED, f"{note}{readable_bytes(size)}")
        if alone:
            words = [f"{one.domain}: {one.alone}" for one in alone[:_SHOWN]]
            more = f"; and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            note = f"left alone in the object store: {'; '.join(words)}{more}"
            self._tell(node, EventReason.STORE_LEFT_ALONE, note, warning=True)

    def _tell(self, node: str, reason: EventReason, note: str, *, warning: bool = False) -> None:
        about = ObjectRef(kind="GpuNode", name=node, api_version=GPUNODES.api_version)
        self._events.record(about, reason, "Collect", note, warning=warning)
