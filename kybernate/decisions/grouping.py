"""
Which GPUs are given out together: groups from profiles and an inventory.

Called by: the device plugin and the node agent, who must come to the same groups; `kyb topology`.
Rule: listed groups replace the formed ones of their size. Formed groups of a size are disjoint and
as many as fit; among all ways to form them the one with the nearest GPUs is taken, and among equal
ones the one with the lowest indices first. Groups of different sizes may overlap.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations

from kybernate.model.gpu import Gpu, Group, Health, Profile
from kybernate.model.ids import GroupName
from kybernate.model.topology import SYS, group_name, link_word

Indices = tuple[int, ...]


def groups_of(
    profiles: Iterable[Profile],
    gpus: Sequence[Gpu],
    listed: Mapping[GroupName, Indices] | None = None,
) -> tuple[Group, ...]:
    """Every group of a node, smallest first. A size with too few GPUs has none. A listed group is
    there although a GPU of it is not: see `missing`."""
    listed = listed or {}
    memory = {gpu.index: gpu.memory for gpu in gpus}
    found: list[Group] = []
    for profile in sorted(profiles, key=lambda one: one.group_size):
        for name, indices in _named(profile.group_size, gpus, listed):
            vram = sum(memory.get(index, 0) for index in indices)
            found.append(Group(name=name, gpus=indices, profile=profile, vram=vram))
    return tuple(found)


def missing(group: Group, gpus: Iterable[Gpu]) -> tuple[int, ...]:
    """Its GPUs that are not there: a card that fell off, or was never in this machine."""
    there = {gpu.index for gpu in gpus}
    return tuple(index for index in group.gpus if index not in there)


def group_health(group: Group, gpus: Iterable[Gpu]) -> Health:
    """Healthy when all its GPUs are; unknown when one is unknown or absent, else unhealthy."""
    by_index = {gpu.index: gpu.health for gpu in gpus}
    healths = {by_index.get(index, Health.UNKNOWN) for index in group.gpus}
    for worst in (Health.UNHEALTHY, Health.UNKNOWN):
        if worst in healths:
            return worst
    return Health.HEALTHY


def topology_table(gpus: Sequence[Gpu], groups: Iterable[Group] = ()) -> str:
    """The inventory as `nvidia-smi topo -m` shows it, with NUMA nodes and groups."""
    names = [f"GPU{gpu.index}" for gpu in gpus]
    groups = tuple(groups)
    rows = [["", *names, "NUMA", "Groups"]]
    for name, gpu in zip(names, gpus, strict=True):
        near = [_cell(gpu, other) for other in gpus]
        numa = "N/A" if gpu.numa is None else str(gpu.numa)
        mine = " ".join(group.name for group in groups if gpu.index in group.gpus)
        rows.append([name, *near, numa, mine])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _named(
    size: int, gpus: Sequence[Gpu], listed: Mapping[GroupName, Indices]
) -> list[tuple[GroupName, Indices]]:
    of_size = [(name, tuple(sorted(g))) for name, g in listed.items() if len(g) == size]
    if of_size:
        return sorted(of_size)
    return [(group_name(indices), indices) for indices in _form(size, gpus)]


def _form(size: int, gpus: Sequence[Gpu]) -> tuple[Indices, ...]:
    """Disjoint groups: exact search, with what remains as the key. 16 GPUs in pairs take 1 s."""
    by_index = {gpu.index: gpu for gpu in gpus}

    @cache
    def best(rest: Indices, spare: int) -> tuple[tuple[int, int], tuple[Indices, ...]]:
        if len(rest) < size:
            return (0, 0), ()
        first, others = rest[0], rest[1:]
        options = []
        for chosen in combinations(others, size - 1):
            group = (first, *chosen)
            (near, same), groups = best(tuple(i for i in others if i not in chosen), spare)
            links_sum, numa_sum = _nearness(group, by_index)
            options.append(((near + links_sum, same + numa_sum), (group, *groups)))
        if spare:
            options.append(best(others, spare - 1))
        return max(options, key=lambda option: option[0])  # the first of equals: lowest indices

    return best(tuple(sorted(by_index)), len(by_index) % size)[1]


def _nearness(group: Indices, by_index: Mapping[int, Gpu]) -> tuple[int, int]:
    """The sum of link ranks within, and how many pairs share a NUMA node."""
    pairs = [(by_index[a], by_index[b]) for a, b in combinations(group, 2)]
    same = sum(1 for a, b in pairs if a.numa is not None and a.numa == b.numa)
    return sum(a.links.get(b.index, SYS) for a, b in pairs), same


def _cell(gpu: Gpu, other: Gpu) -> str:
    if gpu.index == other.index:
        return "X"
    return link_word(gpu.links.get(other.index, SYS))
