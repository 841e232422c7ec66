"""The demand watch put together from the agent's parts. Called by `engine`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kybernate.clients.clock import Clock
from kybernate.clients.policy import Policy
from kybernate.model.callers import NOBODY
from kybernate.model.engines import UNKNOWN
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import Workload
from nodeagent.demand import Signal
from nodeagent.demand.calls import Submitted
from nodeagent.demand.engine import Engine
from nodeagent.demand.gathering import Gathered, Slow
from nodeagent.demand.known import Known
from nodeagent.demand.lines import Lines
from nodeagent.demand.scraping import Endpoints, Pages
from nodeagent.demand.sockets import Sockets
from nodeagent.demand.told import Told
from nodeagent.demand.watch import DemandWatch
from nodeagent.demand.work import Work
from nodeagent.linux.cgroups import Cgroups
from nodeagent.lives.life import Life, Lives
from nodeagent.mechanisms import Body
from nodeagent.mechanisms.guestwire import Calls
from nodeagent.probing.netns import Namespaces
from nodeagent.turns.coordinator import Coordinator


class CountsCalls(Protocol):
    """Who counts calls into the driver: the guest library's mechanism."""

    def here(self, body: Body) -> bool:
        """Whether any of its processes has the library."""

    def calls(self, body: Body) -> tuple[Calls, ...] | None:
        """By process; None where one cannot tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What demand is read from and told to. Without `on_connect` sockets are not looked at."""

    lives: Lives
    coordinator: Coordinator
    policy: Policy
    cgroups: Cgroups
    clock: Clock
    on_connect: bool
    pod_of: Callable[[WorkloadKey], Workload | None]
    pods_known: Callable[[], bool]
    guests: CountsCalls | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """The watch, and what somebody else writes or reads."""

    watch: DemandWatch
    told: Told
    known: tuple[Known[Any], ...]
    gathered: tuple[Gathered, ...]

    def start(self) -> None:
        """Begin; returns at once."""
        for known in self.known:
            known.start()
        for gathered in self.gathered:
            gathered.start()
        self.watch.start()

    def stop(self) -> None:
        """End."""
        self.watch.stop()
        for gathered in self.gathered:
            gathered.stop()
        for known in self.known:
            known.stop()


def of(parts: Parts) -> Demands:
    """All of it, listening to the coordinator; to be called before that starts."""
    coordinator, clock, policy = parts.coordinator, parts.clock, parts.policy
    network = Namespaces()
    lines = Lines(network)
    ignored = Known("ignored callers", policy.ignored_callers, NOBODY, clock)
    engines = Known("engines", policy.engines, UNKNOWN, clock)
    told, work = Told(clock), Work(lambda: coordinator.picture, clock)

    def asked_to_park(life: Life) -> bool:
        tenancy = coordinator.books.tenancies.get(life.key)
        return tenancy is not None and tenancy.asked_to_park

    sockets = Sockets(lines.look, ignored.now, work.works, parts.cgroups, clock, asked_to_park)
    endpoints = Endpoints(parts.pod_of, parts.pods_known, engines.now)
    engine = Engine(Pages(network).text, endpoints, engines.now, clock)
    slow: list[Slow] = [engine, *_submitted(parts)]
    gathered = tuple(Gathered(one, parts.lives, clock) for one in slow)
    signals: list[Signal] = [told, work, *gathered, *([sockets] if parts.on_connect else [])]
    watch = DemandWatch(parts.lives, coordinator, signals, lines, clock)
    watch.on_forget = sockets.forget
    told.on_report = watch.look_at
    coordinator.on_change(watch.changed)
    return Demands(watch=watch, told=told, known=(ignored, engines), gathered=gathered)


def _submitted(parts: Parts) -> list[Submitted]:
    guests = parts.guests
    if guests is None:
        return []
    return [
        Submitted(
            lambda life: guests.here(life.body), lambda life: guests.calls(life.body), parts.clock
        )
    ]
