"""Obstacles to parking a workload on a real GPU. Pure; called by `reporting`, `mechanisms.real`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """One process of a workload. `driver`, `library` and `nccl`: it has mapped them."""

    pid: int
    command: str = ""
    driver: bool = False
    library: bool = False
    nccl: bool = False
    verbs: bool = False  # it has an RDMA device open

    def __str__(self) -> str:
        return f"{self.command or 'a process'} ({self.pid})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A workload as it runs. `left`: lines of the guests, as `3 12582912 managed memory`."""

    processes: Sequence[ProcessFacts] = field(default_factory=tuple)
    left: Sequence[str] = ()
    cards: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """`reason` is constant, `words` are for people. `forbids`: it is not parked while this is so;
    else it is parked as far as it goes."""

    reason: str
    words: str
    forbids: bool = False


def obstacles(facts: Facts) -> tuple[Obstacle, ...]:
    """All of them, those that forbid first."""
    found = (*_verbs(facts), *_without_library(facts), *_nccl(facts), *_staying(facts))
    return tuple(sorted(found, key=lambda one: not one.forbids))


def _verbs(facts: Facts) -> Iterator[Obstacle]:
    if open_ones := [one for one in facts.processes if one.verbs]:
        words = (
            f"{_names(open_ones)} has an RDMA device open: memory that a NIC may have registered "
            "cannot leave the card"
        )
        yield Obstacle(reason="RdmaInUse", words=words, forbids=True)


def _without_library(facts: Facts) -> Iterator[Obstacle]:
    users = [one for one in facts.processes if one.driver]
    without = [one for one in users if not one.library]
    if without:
        mixed = len(without) < len(users)
        then = "others have it, so it cannot be parked" if mixed else "the driver alone parks it"
        words = (
            f"{_names(without)} uses the driver without the guest library (a musl image, an "
            f"ld.so.preload of the image's own, a static program): {then}"
        )
        yield Obstacle(reason="WithoutLibrary", words=words, forbids=mixed)


def _nccl(facts: Facts) -> Iterator[Obstacle]:
    ranks = [one for one in facts.processes if one.driver and one.nccl]
    if ranks and (facts.cards > 1 or len(ranks) > 1):
        words = (
            f"{_names(ranks)} has NCCL on {facts.cards} cards: what NCCL shares stays on the "
            "cards, and ranks that are parked between the steps of a collective do not drain"
        )
        yield Obstacle(reason="NcclAcrossCards", words=words)


def _staying(facts: Facts) -> Iterator[Obstacle]:
    kinds: dict[str, list[int]] = {}
    for line in facts.left:
        count, size, kind = _line(line)
        totals = kinds.setdefault(kind, [0, 0])
        totals[0] += count
        totals[1] += size
    if kinds:
        said = ", ".join(
            f"{count} x {kind} ({size / 2**20:.1f} MiB)" for kind, (count, size) in kinds.items()
        )
        yield Obstacle(reason="StaysOnCard", words=f"stays on the card while parked: {said}")


def _line(line: str) -> tuple[int, int, str]:
    """A guest's word: anything may come."""
    count, _, rest = line.partition(" ")
    size, _, kind = rest.partition(" ")
    if count.isdecimal() and size.isdecimal() and kind:
        return int(count), int(size), kind[:80]
    return 1, 0, "something unreadable"


def _names(some: Sequence[ProcessFacts]) -> str:
    shown = ", ".join(map(str, some[:3]))
    return shown + (f" and {len(some) - 3} more" if len(some) > 3 else "")
