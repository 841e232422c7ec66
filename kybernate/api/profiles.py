"""
The node's profile file: which seats its GPUs have, how GPUs are grouped, and which GPUs there are
where nothing can be asked (design section 5; docs/reference/profiles.md).

Called by: the device plugin, the node agent, the file inventory, the simulated GPUs.
Rule: the shape is `profiles.schema.json`'s business, what belongs together is checked here, and
every fault of both is reported at once with its path.
"""

import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kybernate.api.errors import Faults
from kybernate.api.profile_shape import Entry, Shape, read_shape
from kybernate.api.quantity import parse_bytes
from kybernate.model.gpu import Gpu, Profile
from kybernate.model.ids import GpuUuid, GroupName, ResourceName
from kybernate.model.topology import SYS, group_name, parse_link

Indices = tuple[int, ...]
_FORMED_NAME = re.compile(r"G(\d+|(-\d+)+)")
_RESOURCE_SIZE = re.compile(r"gpu-(\d+)x-seat$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFile:
    """A profile file that can be used. `gpus` is empty where the file lists none."""

    profiles: tuple[Profile, ...]
    listed: Mapping[GroupName, Indices] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()


def load_profiles(text: str) -> ProfileFile:
    """Read the file's text. Raises Malformed with every fault.

    That a listed group's GPUs are in the machine is not the file's matter: a card may have fallen
    off. Where the file lists GPUs itself, they must be among those.
    """
    faults = Faults()
    shape = read_shape(text, faults)
    _must_differ(shape.named, faults)
    gpus = _read_gpus(shape, faults, name=None)
    profiles = _read_profiles(shape.profiles, faults)
    sizes = {profile.group_size for profile in profiles}
    listed = _read_groups(shape.groups, sizes, shape.indices, faults)
    faults.check()
    return ProfileFile(profiles=profiles, listed=listed, gpus=gpus)


def load_inventory(text: str, name: str) -> tuple[Gpu, ...]:
    """Only the `gpus` section, for cards that are simulated: those without a UUID get one.

    Raises Malformed with every fault.
    """
    faults = Faults()
    shape = read_shape(text, faults, only_gpus=True)
    gpus = _read_gpus(shape, faults, name=name)
    faults.check()
    return gpus


def made_up_uuid(name: str, index: int) -> GpuUuid:
    """The UUID of a simulated card: the same for the same name and index."""
    return GpuUuid(f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}/{index}')}")


def _must_differ(entries: list[Entry], faults: Faults) -> None:
    """Names and resources; of ill-shaped entries too, or they would be told one file later."""
    seen = _Once(faults)
    for path, entry in entries:
        kind = "group" if path.startswith("gpuTopology") else "profile"
        for key in ("name", "resource"):
            if isinstance(entry.get(key), str):
                seen.check(f"{path}.{key}", entry[key], f"a {key} no other {kind} has", of=kind)


def _read_profiles(entries: list[Entry], faults: Faults) -> tuple[Profile, ...]:
    profiles = []
    for path, entry in entries:
        size, seats = entry["groupSize"], entry["seatsPerGroup"]
        active = entry.get("activePerGroup", 1)
        named = _RESOURCE_SIZE.search(entry["resource"])
        if named and int(named[1]) != size:
            faults.add(f"{path}.resource", entry["resource"], f"kyb.ai/gpu-{size}x-seat")
        if active > seats:
            faults.add(f"{path}.activePerGroup", active, f"at most seatsPerGroup, {seats}")
        profiles.append(
            Profile(
                name=entry["name"],
                resource=ResourceName(entry["resource"]),
                group_size=size,
                seats_per_group=seats,
                active_per_group=active,
            )
        )
    return tuple(profiles)


def _read_groups(
    entries: list[Entry],
    sizes: Collection[int],
    present: Collection[int],
    faults: Faults,
) -> Mapping[GroupName, Indices]:
    seen = _Once(faults)
    for path, entry in entries:
        name, gpus = entry["name"], tuple(sorted(entry["gpus"]))
        seen.check(f"{path}.gpus", gpus, "GPUs that no other group has together")
        if _FORMED_NAME.fullmatch(name) and name != group_name(gpus):
            faults.add(f"{path}.name", name, f"{group_name(gpus)}, or a name not made of digits")
        if sizes and len(gpus) not in sizes:
            accepted = ", ".join(str(size) for size in sorted(sizes))
            faults.add(f"{path}.gpus", entry["gpus"], f"as many GPUs as a profile has: {accepted}")
        if present:
            _must_be_there(f"{path}.gpus", entry["gpus"], present, faults)
    return {GroupName(entry["name"]): tuple(sorted(entry["gpus"])) for _, entry in entries}


def _must_be_there(path: str, gpus: list[int], present: Collection[int], faults: Faults) -> None:
    there = ", ".join(str(index) for index in sorted(present)) or "none"
    for number, index in enumerate(gpus):
        if index not in present:
            faults.add(f"{path}[{number}]", index, f"the index of a GPU that is there: {there}")


def _read_gpus(shape: Shape, faults: Faults, name: str | None) -> tuple[Gpu, ...]:
    seen = _Once(faults)
    gpus = []
    for path, entry in shape.gpus:
        index = entry["index"]
        seen.check(f"{path}.index", index, "an index no other GPU has")
        if name is None and "uuid" not in entry:
            faults.add(f"{path}.uuid", None, "its UUID as nvidia-smi -L prints it")
        own_uuid = entry.get("uuid") or made_up_uuid(name or "", index)
        seen.check(f"{path}.uuid", own_uuid, "a UUID no other GPU has")
        _links_must_end(path, entry, shape.indices, faults)
        gpus.append(
            Gpu(
                index=index,
                uuid=GpuUuid(own_uuid),
                product=entry["product"],
                memory=faults.read(f"{path}.memory", str(entry["memory"]), _memory, 0),
                numa=entry.get("numa"),
                links=dict(_links_of(index, shape.gpus)),
                device_nodes=tuple(entry.get("deviceNodes", ())),
            )
        )
    return tuple(sorted(gpus, key=lambda gpu: gpu.index))


def _links_must_end(
    path: str, entry: Mapping[str, Any], there: Collection[int], faults: Faults
) -> None:
    others = ", ".join(str(index) for index in sorted(there) if index != entry["index"]) or "none"
    for far in entry.get("links", {}):
        if int(far) not in there or int(far) == entry["index"]:
            faults.add(f"{path}.links.{far}", int(far), f"another GPU's index: {others}")


def _links_of(index: int, entries: list[Entry]) -> Iterator[tuple[int, int]]:
    """A link is given at either end or at both; the nearer one counts where they differ."""
    found: dict[int, int] = {}
    for _, entry in entries:
        for other, word in entry.get("links", {}).items():
            ends = {entry["index"], int(other)}
            if index in ends and len(ends) > 1:
                (far,) = ends - {index}
                found[far] = max(found.get(far, SYS), parse_link(word))
    yield from found.items()


def _memory(text: str) -> int:
    size = parse_bytes(text)
    if size <= 0:
        raise ValueError("a size like 80Gi, more than 0")
    return size


class _Once:
    """Reports values that come a second time, by the last part of their path, `of` one kind."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._seen: set[tuple[str, str, object]] = set()

    def check(self, path: str, value: object, expected: str, of: str = "") -> None:
        """Report `value` at `path` when it was seen at another entry's."""
        key = (of, path.rpartition(".")[2], value)
        if key in self._seen:
            shown = list(value) if isinstance(value, tuple) else value
            self._faults.add(path, shown, expected)
        self._seen.add(key)
