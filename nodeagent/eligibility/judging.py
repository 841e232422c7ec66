"""Obstacles to parking a workload on a real GPU. Pure; called by `reporting`, `mechanisms.real`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

RANKS_ELSEWHERE = "communicators with ranks elsewhere"  # the agent's word among the guests'
_COMMUNICATORS = "communicators of NCCL"
_OF_OTHERS = "memory of other processes"
# What a guest names and nobody can stop in the middle: a constant reason, and words.
_FORBIDDING = {
    RANKS_ELSEWHERE: (
        "RanksElsewhere",
        "it has NCCL communicators with ranks that are not of this workload: those would wait for "
        "it, and their watchdogs end the job",
    ),
    "windows of NCCL": (
        "NcclWindows",
        "it has registered windows with NCCL (symmetric memory, kernels of its own): what reads "
        "other cards' memory through them is not stopped together",
    ),
    "functions of a second NCCL": (
        "SecondNccl",
        "a process has two NCCL libraries: the calls of one of them are not seen",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """One process of a workload. `driver`, `library` and `nccl`: it has mapped them."""

    pid: int
    command: str = ""
    driver: bool = False
    library: bool = False
    nccl: bool = False
    nccl_inside: bool = False  # it has NCCL's threads, and no library of that name
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
    found = (
        *_verbs(facts),
        *_without_library(facts),
        *_unstoppable(facts),
        *_nccl(facts),
        *_staying(facts),
    )
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
            f"{_names(ranks)} has NCCL on {facts.cards} cards: all ranks are parked together, "
            "shallow; contexts and what NCCL shares stay on the cards"
        )
        yield Obstacle(reason="NcclAcrossCards", words=words)


def _unstoppable(facts: Facts) -> Iterator[Obstacle]:
    kinds = _kinds(facts.left)
    for kind, (reason, words) in _FORBIDDING.items():
        if kind in kinds:
            yield Obstacle(reason=reason, words=words, forbids=True)
    if facts.cards > 1 and _OF_OTHERS in kinds:
        words = (
            "a process has mapped memory of another one and the workload has "
            f"{facts.cards} cards: kernels that wait for each other through it (a custom "
            "all-reduce; in vLLM --disable-custom-all-reduce) are not stopped together"
        )
        yield Obstacle(reason="PeerMemory", words=words, forbids=True)
    inside = [one for one in facts.processes if one.nccl_inside]
    if inside and _COMMUNICATORS not in kinds:
        words = f"{_names(inside)} has NCCL built in, so its collectives are not seen"
        yield Obstacle(reason="NcclBuiltIn", words=words, forbids=True)


def _kinds(left: Sequence[str]) -> set[str]:
    return {_line(line)[2] for line in left}


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
