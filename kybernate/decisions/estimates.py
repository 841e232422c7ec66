"""
Seconds, itemised: parking a holder, fetching contents, resuming, starting cold.

Called by: `outlook.py` (parking) and `placement.py` (starting).
Rule: a rate is the node's own measurement; `UNMEASURED` stands in until there is one, with a spread
that says how little it means.
"""

from collections.abc import Mapping

from kybernate.decisions.demand import Contents
from kybernate.model.estimate import Item, Step
from kybernate.model.ids import NodeName
from kybernate.model.node import Tenant
from kybernate.model.tier import Bandwidth, Tier

BUS = Tier.RAM
"""RAM to VRAM and back is the bus; both ways count alike."""

# A PCIe 4 card's pinned copies, one NVMe disk, a busy 10 Gbit/s link: the low end of each, so that
# a node that measured something good is preferred to one that measured nothing.
UNMEASURED: Mapping[Tier, Bandwidth] = {
    Tier.RAM: Bandwidth(bytes_per_second=10e9, spread=0.5),
    Tier.NVME: Bandwidth(bytes_per_second=1.5e9, spread=0.5),
    Tier.OBJECT: Bandwidth(bytes_per_second=0.5e9, spread=0.5),
}

Timed = tuple[tuple[Item, ...], float]
"""Items, and by how many seconds they may be off together."""


def park(holders: tuple[Tenant, ...], rates: Mapping[Tier, Bandwidth]) -> Timed:
    """Moving the holders' VRAM contents out, one after the other."""
    bus = rate(rates, BUS)
    items = tuple(Item(Step.PARK, bus.seconds(t.vram), t.key.name) for t in holders)
    return items, sum(item.seconds for item in items) * bus.spread


def start(
    contents: Contents | None, node: NodeName, rates: Mapping[Tier, Bandwidth], cold_start: float
) -> Timed:
    """From an empty GPU to running: out of a checkpoint where one is within reach, else cold.

    A cold start has no spread: it is the same guess on every node, so it never tells two apart.
    """
    tier = _nearest(contents, node)
    if contents is None or tier is None:
        return (Item(Step.COLD, cold_start),), 0.0
    bus = rate(rates, BUS)
    resume = Item(Step.RESUME, bus.seconds(contents.size))
    if tier in (Tier.RAM, Tier.VRAM):
        return (resume,), resume.seconds * bus.spread
    link = rate(rates, tier)
    fetch = Item(Step.FETCH, link.seconds(contents.size), f"{tier} {size_text(contents.size)}")
    spread = fetch.seconds * link.spread + resume.seconds * bus.spread
    return (fetch, resume), spread


def rate(rates: Mapping[Tier, Bandwidth], tier: Tier) -> Bandwidth:
    """The measured rate, or what stands in for it."""
    return rates.get(tier) or UNMEASURED[tier]


def size_text(size: int) -> str:
    """Bytes for people: `40 GiB`, `1.5 GiB`, `200 MiB`."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


def _nearest(contents: Contents | None, node: NodeName) -> Tier | None:
    """The tier to fetch from. A copy on another node only is out of reach."""
    if contents is None:
        return None
    return contents.copies.get(node) or (Tier.OBJECT if contents.in_object_storage else None)
