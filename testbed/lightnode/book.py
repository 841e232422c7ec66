"""
Which devices there are and which pod's container has them, as the kubelet's device manager counts.

Called by: `plugins`, under its lock. Pure, but for what it keeps.
Rule: what was given stays given until the pod ends, whatever becomes of the device or its plugin.
The file is shaped like the kubelet's own `kubelet_internal_checkpoint`, for those who read that.
"""

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NO_NUMA = "-1"  # what the kubelet writes for devices without a NUMA node


@dataclass(frozen=True, slots=True)
class Grant:
    """What one container was given of one resource. `response` is the plugin's, serialized."""

    uid: str
    container: str
    resource: str
    ids: tuple[str, ...]
    response: bytes


class Short(Exception):
    """Not enough devices; the text is the kubelet's."""


@dataclass
class Book:
    """Devices by resource (id -> healthy), and grants."""

    devices: dict[str, dict[str, bool]] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)

    def counts(self) -> Mapping[str, tuple[int, int]]:
        """Resource -> (capacity, allocatable)."""
        return {name: (len(found), sum(found.values())) for name, found in self.devices.items()}

    def free(self, resource: str) -> list[str]:
        """Healthy devices nobody has, in order."""
        taken = {one for grant in self.grants if grant.resource == resource for one in grant.ids}
        found = self.devices.get(resource, {})
        return sorted(one for one, healthy in found.items() if healthy and one not in taken)

    def choose(self, resource: str, count: int, preferred: Collection[str]) -> tuple[str, ...]:
        """The preferred ones that are free, topped up. Raises Short."""
        free = self.free(resource)
        if len(free) < count:
            raise Short(
                f"requested number of devices unavailable for {resource}. "
                f"Requested: {count}, Available: {len(free)}"
            )
        wanted = [one for one in preferred if one in free]
        rest = [one for one in free if one not in wanted]
        return tuple([*wanted, *rest][:count])

    def of(self, uid: str) -> tuple[Grant, ...]:
        """What a pod has."""
        return tuple(grant for grant in self.grants if grant.uid == uid)

    def drop(self, keep: Collection[str]) -> None:
        """Take back what pods other than these had."""
        self.grants = [grant for grant in self.grants if grant.uid in keep]

    def lose(self, resource: str) -> None:
        """The plugin is away: its devices stay, none can be had."""
        self.devices[resource] = dict.fromkeys(self.devices.get(resource, {}), False)

    def document(self) -> dict[str, Any]:
        """For the file."""
        return {
            "Data": {
                "PodDeviceEntries": [_entry(grant) for grant in self.grants],
                "RegisteredDevices": {name: sorted(d) for name, d in self.devices.items()},
            },
            "Checksum": 0,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Book":
        """From the file. No plugin is registered yet, so no device is healthy."""
        entries: Sequence[Mapping[str, Any]] = document["Data"]["PodDeviceEntries"] or ()
        known: Mapping[str, Iterable[str]] = document["Data"]["RegisteredDevices"] or {}
        return cls(
            devices={name: dict.fromkeys(ids, False) for name, ids in known.items()},
            grants=[_grant(entry) for entry in entries],
        )


def _entry(grant: Grant) -> dict[str, Any]:
    return {
        "PodUID": grant.uid,
        "ContainerName": grant.container,
        "ResourceName": grant.resource,
        "DeviceIDs": {NO_NUMA: list(grant.ids)},
        "AllocResp": base64.b64encode(grant.response).decode(),
    }


def _grant(entry: Mapping[str, Any]) -> Grant:
    return Grant(
        uid=entry["PodUID"],
        container=entry["ContainerName"],
        resource=entry["ResourceName"],
        ids=tuple(one for ids in entry["DeviceIDs"].values() for one in ids),
        response=base64.b64decode(entry["AllocResp"]),
    )
