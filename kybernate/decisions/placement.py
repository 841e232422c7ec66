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
    usable = _usable(node, demand)
    refusal = usable if isinstance(usable, Refusal) else None
    denied = verdict.deny.get(node.class_id)
    if denied is not None and (refusal is None or refusal.reason in RESOLVABLE):
        # Policy's no is final: nobody may be evicted for a refusal that eviction does not lift.
        return Refusal(reason=Reason.POLICY_DENIED, detail=denied)
    if isinstance(usable, Refusal):
        return usable
    start, spread = estimates.start(demand.contents, node.name, node.rates, demand.cold_start)
    options = _options(usable, demand, sum(item.seconds for item in start), now)
    best = _preferred(options, demand) or min(options)
    _, misfit, _, not_before, seconds_after, group = best
    parks = group.group.vram - misfit > group.beside
    return Assessment(
        node=node.name,
        group=group.group.name,
        not_before=not_before,
        steps=(*group.park, *start) if parks else start,
        seconds_after=seconds_after,
        spread=spread + (group.park_spread if parks else 0.0),
        penalty=verdict.penalty_seconds.get(node.class_id, 0.0),
        misfit=misfit,
        waiting=group.waiting + _nominated(node, demand),
        valid_until=_valid_until(options, best, now),
        ring=zlib.crc32(node.name.encode()),
    )


def unresolvable(refusal: Refusal) -> bool:
    """Whether evicting pods from the node cannot help."""
    return refusal.reason not in RESOLVABLE


# When it would run (wall clock), misfit, place in the list, not before, seconds after that, group.
# A tuple and not a class: at 5,000 nodes of 8 GPUs there are 40,000 of them.
_Option = tuple[float, int, int, float, float, GroupOutlook]


def _options(
    usable: list[GroupOutlook], demand: Demand, start_seconds: float, now: float
) -> list[_Option]:
    options: list[_Option] = []
    for at, outlook in enumerate(usable):
        vram = outlook.group.vram
        misfit = 0 if demand.vram is None else vram - demand.vram
        if vram - misfit <= outlook.beside:
            not_before, seconds = 0.0, start_seconds
        else:
            not_before, seconds = outlook.not_before, start_seconds + outlook.park_seconds
        ready = (not_before if not_before > now else now) + seconds
        options.append((ready, misfit, at, not_before, seconds, outlook))
    return options


def _preferred(options: list[_Option], demand: Demand) -> _Option | None:
    """The node gives out the preferred group first, so that is what the pod would get."""
    if demand.prefer_group is None:
        return None
    return next((o for o in options if o[5].group.name == demand.prefer_group), None)


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
    ripening = [o for o in options if o[3] > now]
    ends = [o[3] for o in ripening]
    if best[3] <= now:
        ends += [moment for o in ripening if (moment := o[3] + o[4] - best[4]) > now]
    return min(ends, default=NEVER)
