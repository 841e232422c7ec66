"""GpuNodes whose agent is silent: their Ready condition becomes Unknown, and True again later.

The agent says Ready itself; only its silence is ours to say. Rule: nobody compares the clocks of
two machines. An agent is away when its Lease has not changed for the Lease's length *while we
watched*, and back only when we saw it change: a controller that has just started knows neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.duties import Duty
from kybernate.api import gpunodes
from kybernate.clients.clock import Clock
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import DELETED, Change, Reflector
from kybernate.clients.resources import GPUNODES, LEASES
from kybernate.runtime.logs import get_logger

LEASE_PREFIX = "kyb-agent-"
AWAY = "AgentAway"  # our own reason: another Unknown is not ours to undo
NO_LEASE = 40.0  # seconds an agent has to write its first Lease: its own Lease's usual length
UNSYNCED = 0.5  # seconds until the next look while Leases are not watched
_MARGIN = 0.1  # seconds after a deadline, so that one look is enough
_MESSAGES = {
    None: "the node agent has not renewed its Lease",  # constant: no numbers that change
    True: "the node agent renews its Lease again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """An agent's Lease as we watched it. `at` is our monotonic clock at its last change."""

    at: float
    length: float = NO_LEASE
    renewed: bool = False  # changed while we watched


@dataclass(frozen=True, slots=True)
class Ready:
    """The Ready condition of a GpuNode."""

    status: str
    reason: str


def plan(ready: Ready, pulse: Pulse, now: float) -> bool | None:
    """The Ready to write: True, or False for "away"; None where nothing is to be written."""
    marked = ready.status == "Unknown" and ready.reason == AWAY
    if now - pulse.at > pulse.length:
        return None if marked else False
    return True if marked and pulse.renewed else None


class Readiness:
    """Watches agents' Leases and GpuNodes; the leader writes the condition."""

    def __init__(self, kube: Kube, clock: Clock, namespace: str) -> None:
        self._kube, self._clock = kube, clock
        self._pulses: dict[str, Pulse] = {}
        self._leases = Reflector(
            kube, LEASES, namespace=namespace, project=_agent_lease, on_change=self._beat
        )
        self._nodes = Reflector(kube, GPUNODES, project=_ready, on_change=self._node_changed)
        self.watches = (self._leases, self._nodes)
        self.duty: Duty[str] = Duty("readiness", clock, self.look, self.names)
        self._log = get_logger(duty="readiness")

    def names(self) -> list[str]:
        """The GpuNodes there are."""
        return sorted(name for _, name in self._nodes.items())

    def look(self, name: str) -> float | None:
        """Write the condition where it is wrong; seconds until the Lease may be stale."""
        ready = self._nodes.get(("", name))
        if ready is None or not self._leases.synced:
            return None if ready is None else UNSYNCED
        now = self._clock.monotonic()
        if not self._leases.following:  # the API server is away, for us at least
            self._pulses[name] = replace(self._pulses.get(name, Pulse(at=now)), at=now)
            return UNSYNCED
        pulse = self._pulses.setdefault(name, Pulse(at=now))
        wanted = plan(ready, pulse, now)
        if wanted is not None:
            self._write(name, wanted)
        left = pulse.at + pulse.length - now
        return left + _MARGIN if left >= 0 else None

    def _write(self, name: str, back: bool) -> None:
        """Replace the Ready condition only, and only if nobody wrote in between."""
        node = self._kube.get(GPUNODES, name)
        status = node.get("status") or {}
        others = [c for c in status.get("conditions") or () if c.get("type") != "Ready"]
        value = True if back else None
        condition = gpunodes.ready_condition(
            value, self._clock.now(), "" if back else AWAY, _MESSAGES[value]
        )
        patch = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "status": {"conditions": [*others, condition]},
        }
        self._kube.patch(GPUNODES, name, patch, subresource="status")
        self._log.info("agent is back" if back else "agent is away", node=name)

    def _beat(self, change: Change[Mapping[str, Any]]) -> None:
        name = change.key[1].removeprefix(LEASE_PREFIX)
        now = self._clock.monotonic()
        if change.kind is DELETED or change.new is None:
            known = self._pulses.get(name, Pulse(at=now))
            self._pulses[name] = replace(known, renewed=False)
        else:
            # the first list only says what was; anything after it is a sign of life
            length = (change.new.get("spec") or {}).get("leaseDurationSeconds") or NO_LEASE
            self._pulses[name] = Pulse(at=now, length=float(length), renewed=self._leases.synced)
        self.duty.touch(name)

    def _node_changed(self, change: Change[Ready]) -> None:
        if change.kind is DELETED:
            self._pulses.pop(change.key[1], None)
        self.duty.touch(change.key[1])


def _agent_lease(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return obj if obj["metadata"]["name"].startswith(LEASE_PREFIX) else None


def _ready(obj: Mapping[str, Any]) -> Ready:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            return Ready(str(condition.get("status")), str(condition.get("reason", "")))
    return Ready("Unknown", "")
