"""
Can this demand be met on this node, on which group, and in how many seconds?

Called by: the extender for the nodes of a request, live and in replay.
Rule: a node's answer depends on that node alone; comparing nodes is `ranking.py`.
Rule: seats are the scheduler's to count. Where the agent's report says that all are taken and the
scheduler says there is one, the scheduler is newer.
"""

import zlib
from dataclasses import dataclass

from kybernate.decisions import estimates
from kybernate.decisions.demand import Demand
from kybernate.decisions.outlook import GroupOutlook, NodeOutlook
from kybernate.model.estimate import Estimate, Item, Step
from kybernate.model.ids import GroupName, NodeName
from kybernate.model.policy import PlacementVerdict
from kybernate.model.verdict import Reason, Refusal

RESOLVABLE = frozenset({Reason.NO_HOST_MEMORY, Reason.GROUP_FULL})
"""Refusals that evicting somebody from the node can cure; the scheduler may try preemption."""

NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A yes: the best group of a node. `cost` orders nodes, the estimate is for people. Seconds.

    `valid_until` is when, on the wall clock, the choice of the group may change by itself.
    """

    node: NodeName
    group: GroupName
    not_before: float  # wall clock: the holders' minimum runtime ends
    steps: tuple[Item, ...]  # what comes after that
    seconds_after: float  # their sum
    spread: float
    penalty: float  # policy's, in seconds; it orders nodes but nobody waits for it
    misfit: int  # bytes of the group's VRAM that stay unused
    waiting: int
    valid_until: float
    ring: int  # a hash of the node's name, to spread equals

    def wait(self, now: float) -> float:
        """Seconds until the holders may go."""
        return self.not_before - now if self.not_before > now else 0.0

    def cost(self, now: float) -> float:
        """Seconds until running plus policy's penalty."""
        return self.wait(now) + self.seconds_after + self.penalty

    def estimate(self, now: float) -> Estimate:
        """The itemised estimate."""
        wait = self.wait(now)
        first = (Item(Step.WAIT, wait),) if wait else ()
        return Estimate((*first, *self.steps), self.spread)


def assess(
    node: NodeOutlook | None, demand: Demand, verdict: PlacementVerdict, now: float
) -> Assessment | Refusal:
    """The node's best group for this demand, or why there is none."""
    if node is None:
        return Refusal(reason=Reason.NOT_MANAGED)
    if not node.agent_ready:
        return Refusal(reason=Reason.AGENT_AWAY)
    denied = verdict.deny.get(node.class_id)
    if denied is not None:
        return Refusal(reason=Reason.POLICY_DENIED, detail=denied)
    usable = _usable(node, demand)
    if isinstance(usable, Refusal):
        return usable
    start, spread = estimates.start(demand.contents, node.name, node.rates, demand.cold_start)
    options = [_option(group, demand, start) for group in usable]
    best = _preferred(options, demand) or min(options, key=lambda o: (o.ready(now), o.misfit))
    return Assessment(
        node=node.name,
        group=best.outlook.group.name,
        not_before=best.not_before,
        steps=(*best.park, *start),
        seconds_after=best.seconds_after,
        spread=best.spread + spread,
        penalty=verdict.penalty_seconds.get(node.class_id, 0.0),
        misfit=best.misfit,
        waiting=best.outlook.waiting + _nominated(node, demand),
        valid_until=_valid_until(options, best, now),
        ring=zlib.crc32(node.name.encode()),
    )


def unresolvable(refusal: Refusal) -> bool:
    """Whether evicting pods from the node cannot help."""
    return refusal.reason not in RESOLVABLE


@dataclass(frozen=True, slots=True)
class _Option:
    """A usable group with the seconds it would take."""

    outlook: GroupOutlook
    park: tuple[Item, ...]
    not_before: float
    seconds_after: float
    spread: float
    misfit: int

    def ready(self, now: float) -> float:
        """When the workload would run, on the wall clock."""
        return max(self.not_before, now) + self.seconds_after


def _option(outlook: GroupOutlook, demand: Demand, start: tuple[Item, ...]) -> _Option:
    needed = outlook.group.vram if demand.vram is None else demand.vram
    misfit = outlook.group.vram - needed
    seconds = sum(item.seconds for item in start)
    if needed <= outlook.beside:
        return _Option(outlook, (), 0.0, seconds, 0.0, misfit)
    seconds += outlook.park_seconds
    return _Option(outlook, outlook.park, outlook.not_before, seconds, outlook.park_spread, misfit)


def _preferred(options: list[_Option], demand: Demand) -> _Option | None:
    """The node gives out the preferred group first, so that is what the pod would get."""
    if demand.prefer_group is None:
        return None
    return next((o for o in options if o.outlook.group.name == demand.prefer_group), None)


def _usable(node: NodeOutlook, demand: Demand) -> list[GroupOutlook] | Refusal:
    """The groups that pass every test; the first test nobody passes names the refusal."""
    left = list(node.groups.get(demand.resource, ()))
    if not left:
        return Refusal(reason=Reason.NO_SUCH_SEAT)
    if demand.require_group is not None:
        left = [g for g in left if g.group.name == demand.require_group]
        if not left:
            return Refusal(reason=Reason.GROUP_ABSENT, detail=f"{demand.require_group}")
        if not left[0].seat_free:
            return Refusal(reason=Reason.GROUP_FULL, detail=f"{demand.require_group}")
    if demand.vram is not None:
        largest = max(g.group.vram for g in left)
        left = [g for g in left if g.group.vram >= demand.vram]
        if not left:
            return _too_small(demand.vram, largest)
    left = [g for g in left if g.healthy]
    if not left:
        return Refusal(reason=Reason.GROUP_UNHEALTHY)
    # Groups with a free seat by the agent's report; all of them where it lags behind.
    left = [g for g in left if g.seat_free] or left
    left = [g for g in left if g.room_to_park or _fits_beside(g, demand)]
    return left or Refusal(reason=Reason.NO_HOST_MEMORY)


def _fits_beside(outlook: GroupOutlook, demand: Demand) -> bool:
    needed = outlook.group.vram if demand.vram is None else demand.vram
    return needed <= outlook.beside


def _too_small(wanted: int, largest: int) -> Refusal:
    text = f"{estimates.size_text(wanted)} of {estimates.size_text(largest)}"
    return Refusal(reason=Reason.VRAM_TOO_SMALL, detail=text)


def _nominated(node: NodeOutlook, demand: Demand) -> int:
    """Pods that preemption promised this node and that go first."""
    return sum(
        arrival.priority >= demand.priority and arrival.uid != demand.nominated
        for arrival in node.nominated
    )


def _valid_until(options: list[_Option], best: _Option, now: float) -> float:
    """A wait that ends changes an option from ripening to ripe; and a ripening one may overtake."""
    ends = [o.not_before for o in options if o.not_before > now]
    if best.not_before <= now:
        overtakes = [
            o.not_before + o.seconds_after - best.seconds_after
            for o in options
            if o.not_before > now
        ]
        ends += [moment for moment in overtakes if moment > now]
    return min(ends, default=NEVER)
