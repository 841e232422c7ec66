"""The demand watch put together from the agent's parts. Called by `engine`."""

from dataclasses import dataclass

from kybernate.clients.clock import Clock
from kybernate.clients.policy import Policy
from nodeagent.demand import Signal
from nodeagent.demand.ignored import Ignored
from nodeagent.demand.lines import Lines
from nodeagent.demand.sockets import Sockets
from nodeagent.demand.told import Told
from nodeagent.demand.watch import DemandWatch
from nodeagent.demand.work import Work
from nodeagent.linux.cgroups import Cgroups
from nodeagent.lives.life import Life, Lives
from nodeagent.probing.netns import Namespaces
from nodeagent.turns.coordinator import Coordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What demand is read from and told to. Without `on_connect` sockets are not looked at."""

    lives: Lives
    coordinator: Coordinator
    policy: Policy
    cgroups: Cgroups
    clock: Clock
    on_connect: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """The watch, and what somebody else writes or reads."""

    watch: DemandWatch
    told: Told
    ignored: Ignored

    def start(self) -> None:
        """Begin; returns at once."""
        self.ignored.start()
        self.watch.start()

    def stop(self) -> None:
        """End."""
        self.watch.stop()
        self.ignored.stop()


def of(parts: Parts) -> Demands:
    """All of it, listening to the coordinator; to be called before that starts."""
    coordinator, clock = parts.coordinator, parts.clock
    lines = Lines(Namespaces())
    ignored = Ignored(parts.policy, clock)
    told, work = Told(clock), Work(lambda: coordinator.picture)

    def asked_to_park(life: Life) -> bool:
        tenancy = coordinator.books.tenancies.get(life.key)
        return tenancy is not None and tenancy.asked_to_park

    sockets = Sockets(
        lines.look, ignored.callers, work.works, parts.cgroups, clock, asked_to_park
    )  # fmt: skip
    signals: list[Signal] = [told, work, *([sockets] if parts.on_connect else [])]
    watch = DemandWatch(parts.lives, coordinator, signals, lines, clock)
    watch.on_forget = sockets.forget
    told.on_report = watch.look_at
    coordinator.on_change(watch.changed)
    return Demands(watch=watch, told=told, ignored=ignored)
