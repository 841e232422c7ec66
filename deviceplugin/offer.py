"""
Which seats of one resource there are, which to prefer, and what a container with one gets. Pure.

Called by: `server`.
Rule: a container has one seat; a seat of a group that is not healthy is not handed out.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from kybernate.api import names
from kybernate.decisions.grouping import group_health
from kybernate.model.gpu import Gpu, Group, Health, Seat
from kybernate.model.ids import GpuUuid, ResourceName, SeatId


class NotHandedOut(Exception):
    """Why this seat cannot be had, in words for the pod's status."""


@dataclass(frozen=True, slots=True)
class Device:
    """A seat as the kubelet sees it."""

    id: SeatId
    healthy: bool
    numa: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFiles:
    """What makes a container's programs guests: paths on the host. `preload` holds the library's
    name within, for /etc/ld.so.preload; why not LD_PRELOAD: docs/decisions/0011."""

    library: str
    preload: str
    socket: str

    def environment(self) -> Mapping[str, str]:
        """Where the library finds the agent."""
        name = PurePath(self.socket).name
        return {names.ENV_GUEST_SOCKET: f"{names.GUEST_SOCKETS}/{name}"}

    def mounts(self) -> Mapping[str, str]:
        """The socket's folder, not the socket: an agent that starts anew makes another."""
        return {
            self.library: names.GUEST_LIBRARY,
            self.preload: names.GUEST_PRELOAD,
            str(PurePath(self.socket).parent): names.GUEST_SOCKETS,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What containers of this node get beside their cards."""

    device_nodes: tuple[str, ...] = ()
    guest: GuestFiles | None = None
    cdi_kind: str = ""
    simulated_gpu: str = ""  # socket of the simulated device


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one container gets. `mounts` maps paths on the host to read-only paths within."""

    environment: Mapping[str, str]
    device_nodes: tuple[str, ...]
    mounts: Mapping[str, str]
    cdi_devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The seats of one resource, as of one look at the GPUs."""

    resource: ResourceName
    groups: tuple[Group, ...]
    gpus: tuple[Gpu, ...]

    def devices(self) -> tuple[Device, ...]:
        """Every seat, healthy or not: the kubelet counts the difference as not allocatable."""
        return tuple(
            Device(seat.id, self._healthy(group), self._numa(group))
            for group in self.groups
            for seat in group.seats()
        )

    def prefer(
        self, available: Collection[str], must_include: Sequence[str], size: int
    ) -> tuple[str, ...]:
        """Our own order, for when the agent is away: what must be in, then seats of healthy groups
        with the most free seats, lowest first."""
        free = [seat for seat in map(self._find, available) if seat and seat.id not in must_include]
        free_in = {group.name: sum(s.group == group.name for s in free) for group in self.groups}
        healthy = {group.name: self._healthy(group) for group in self.groups}
        free.sort(key=lambda s: (not healthy[s.group], -free_in[s.group], s))
        return (*must_include, *(seat.id for seat in free))[:size]

    def allocate(self, ids: Sequence[str], extras: Extras) -> Allocation:
        """What a container with these ids gets. Raises NotHandedOut."""
        if len(ids) != 1:
            raise NotHandedOut(f"a container takes one seat, not {len(ids)}: {', '.join(ids)}")
        seat = self._find(ids[0])
        if seat is None:
            raise NotHandedOut(f"there is no seat {ids[0]!r} of {self.resource} on this node")
        group = next(group for group in self.groups if group.name == seat.group)
        if not self._healthy(group):
            raise NotHandedOut(f"group {group.name} is unhealthy, seat {seat.id} must wait")
        return self._allocation(seat, group, extras)

    def _allocation(self, seat: Seat, group: Group, extras: Extras) -> Allocation:
        by_index = {gpu.index: gpu for gpu in self.gpus}
        cards = [by_index[index] for index in group.gpus]
        environment = {
            names.ENV_INDICES: ",".join(str(index) for index in group.gpus),
            names.ENV_GROUP: group.name,
            names.ENV_SEAT: f"seat-{seat.number}",
            names.ENV_CUDA: ",".join(card.uuid for card in cards),
        }
        mounts: dict[str, str] = {}
        if extras.simulated_gpu:
            environment[names.ENV_DEVICE_SOCKET] = extras.simulated_gpu
            closed = names.closed_gates(extras.simulated_gpu)
            mounts |= {path: path for path in (extras.simulated_gpu, closed)}
        if extras.guest:
            environment |= extras.guest.environment()
            mounts |= extras.guest.mounts()
        own = tuple(node for card in cards for node in card.device_nodes)
        return Allocation(
            environment=environment,
            device_nodes=own + (extras.device_nodes if own else ()),
            mounts=mounts,
            cdi_devices=_cdi(extras.cdi_kind, (card.uuid for card in cards)),
        )

    def _find(self, id_: str) -> Seat | None:
        try:
            seat = Seat.parse(id_)
        except ValueError:
            return None
        known = {group.name: group for group in self.groups}
        group = known.get(seat.group)
        return seat if group and seat.number < group.profile.seats_per_group else None

    def _healthy(self, group: Group) -> bool:
        return group_health(group, self.gpus) is Health.HEALTHY

    def _numa(self, group: Group) -> tuple[int, ...]:
        nodes = {g.numa for g in self.gpus if g.index in group.gpus and g.numa is not None}
        return tuple(sorted(nodes))


def _cdi(kind: str, uuids: Iterable[GpuUuid]) -> tuple[str, ...]:
    return tuple(f"{kind}={uuid}" for uuid in uuids) if kind else ()


def offers(groups: Iterable[Group], gpus: tuple[Gpu, ...]) -> Mapping[ResourceName, Offer]:
    """One offer per resource that has groups here."""
    by_resource: dict[ResourceName, list[Group]] = {}
    for group in groups:
        by_resource.setdefault(group.profile.resource, []).append(group)
    return {
        resource: Offer(resource=resource, groups=tuple(found), gpus=gpus)
        for resource, found in by_resource.items()
    }


def unknown(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """The same cards while nobody can say how they are."""
    return tuple(replace(gpu, health=Health.UNKNOWN) for gpu in gpus)
