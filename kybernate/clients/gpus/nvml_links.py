"""
How near the cards are to each other, from NVML: NVLinks counted, else the PCIe path.

Called by: `kybernate.clients.gpus.nvml`, once.
Rule: links into an NVSwitch reach every card that has such links too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kybernate.model.topology import NODE, PHB, PIX, PXB, SYS, nvlink

_SWITCH = "switch"


def links_between(nvml: Any, handles: Sequence[Any]) -> list[Mapping[int, int]]:
    """For each card: other card's index -> rank (kybernate.model.topology)."""
    bus = {_bus_of(nvml.nvmlDeviceGetPciInfo(handle)): i for i, handle in enumerate(handles)}
    ends = [_link_ends(nvml, handle) for handle in handles]
    found: list[Mapping[int, int]] = []
    for i, handle in enumerate(handles):
        ranks = {}
        for other, far in enumerate(handles):
            if other != i:
                count = _count(ends[i], ends[other], other, bus)
                ranks[other] = nvlink(count) if count else _path(nvml, handle, far)
        found.append(ranks)
    return found


def _count(mine: list[str], theirs: list[str], other: int, bus: Mapping[str, int]) -> int:
    direct = sum(1 for end in mine if bus.get(end) == other)
    return direct or min(mine.count(_SWITCH), theirs.count(_SWITCH))


def _link_ends(nvml: Any, handle: Any) -> list[str]:
    """Where each active NVLink of a card ends: a PCI address, or a switch."""
    ends = []
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        try:
            if nvml.nvmlDeviceGetNvLinkState(handle, link) != nvml.NVML_FEATURE_ENABLED:
                continue
            kind = nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
            if kind == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                ends.append(_SWITCH)
            else:
                ends.append(_bus_of(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link)))
        except nvml.NVMLError:
            continue  # no such link, or a driver that cannot tell
    return ends


def _path(nvml: Any, one: Any, other: Any) -> int:
    ranks = {
        nvml.NVML_TOPOLOGY_INTERNAL: PIX,
        nvml.NVML_TOPOLOGY_SINGLE: PIX,
        nvml.NVML_TOPOLOGY_MULTIPLE: PXB,
        nvml.NVML_TOPOLOGY_HOSTBRIDGE: PHB,
        nvml.NVML_TOPOLOGY_NODE: NODE,
    }
    try:
        return ranks.get(nvml.nvmlDeviceGetTopologyCommonAncestor(one, other), SYS)
    except nvml.NVMLError:
        return SYS


def _bus_of(pci: Any) -> str:
    bus = pci.busId
    return str(bus.decode() if isinstance(bus, bytes) else bus).lower()
