"""
What is not well with the GPUs that are ours to give: who else gives them out, uses or reshapes
them, what the driver says is wrong with them, who holds more than it should. Pure: facts in,
findings out.

Called by: neighbours, which has the facts. Conditions of the GpuNode say what is found, in words;
`kyb doctor` looks at some of it before an installation.
Rule: what is not known is not found: a node without NVIDIA's parts is one where all is well.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kybernate.api.gpunodes import Condition
from kybernate.clients.gpus import Ailment, Setup
from kybernate.model.gpu import Gpu
from nodeagent.truth.books import Deviation

_SPLIT = "::"  # NVIDIA's plugin numbers the replicas of a card so
# Its checkpoints can be asked how they stand, and its PTX compiler knows fingerprint.ptx.
OLDEST_DRIVER = 570
_MANY = 4  # more than this are counted, not listed


class Aspect(StrEnum):
    """What a condition is about. True is well."""

    EXCLUSIVE = "GpusExclusive"  # nobody else gives them out or uses them
    PARKABLE = "GpusParkable"  # they are set up so that tenants can take turns on them
    HEALTHY = "GpusHealthy"  # the driver has nothing against them
    BOOKED = "GpusAsBooked"  # workloads hold what the books say


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not well. `reason` is constant, `words` are for people."""

    aspect: Aspect
    reason: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A process on one of our cards that is of no workload. `pid` 0: the driver does not say.
    `keeps`: it has the card's descriptors open, and the process whose memory it was may be gone."""

    gpu: int
    pid: int
    command: str
    keeps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen on the node."""

    offered: Mapping[str, Collection[str]] = field(default_factory=dict)  # device ids by resource
    taken: Mapping[str, Collection[str]] = field(default_factory=dict)  # pods' uids by resource
    setups: Mapping[int, Setup] = field(default_factory=dict)  # by GPU index
    mps: Sequence[int] = ()  # process numbers of NVIDIA's multi-process service
    strangers: Sequence[Stranger] = ()
    default_runtime: str = ""  # containerd's, for pods without a RuntimeClass
    open_to_environment: bool = False  # NVIDIA_VISIBLE_DEVICES opens cards to any container
    cdi_devices: Collection[str] | None = None  # names of NVIDIA's CDI specs; None: there is none
    missing: Mapping[str, Sequence[int]] = field(default_factory=dict)  # cards by listed group
    ailments: Mapping[int, Sequence[Ailment]] = field(default_factory=dict)  # by GPU index
    deviations: Sequence[Deviation] = ()
    driver: str = ""  # its version; empty where it is none that parks


def findings(facts: Facts, gpus: Sequence[Gpu]) -> tuple[Finding, ...]:
    """All that is not well, the worst first."""
    return (
        *_plugins(facts, gpus),
        *_strangers(facts),
        *_openings(facts),
        *_missing(facts),
        *_old_driver(facts),
        *_setups(facts),
        *_cdi(facts, gpus),
        *_ailing(facts),
        *(Finding(Aspect.BOOKED, one.reason, one.words) for one in facts.deviations),
    )


def conditions(found: Sequence[Finding], since: Mapping[Aspect, float]) -> tuple[Condition, ...]:
    """What the GpuNode is to say. `since` is when each aspect last changed between well and not."""
    return tuple(_condition(one, found, since[one]) for one in Aspect)


def _condition(aspect: Aspect, found: Sequence[Finding], since: float) -> Condition:
    of_it = [one for one in found if one.aspect is aspect]
    return Condition(
        type=aspect.value,
        holds=not of_it,
        since=since,
        reason=of_it[0].reason if of_it else "NothingFound",
        message="; ".join(one.words for one in of_it),
    )


def _plugins(facts: Facts, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """A resource of somebody else's whose devices are our cards."""
    for resource, ids in sorted(facts.offered.items()):
        ours = sorted(gpu.index for gpu in gpus if any(_is_of(one, gpu) for one in ids))
        if not ours:
            continue
        pods = len(facts.taken.get(resource, ()))
        use = f"; {_count(pods, 'pod')} took some" if pods else ""
        yield Finding(
            Aspect.EXCLUSIVE,
            "ForeignDevicePlugin",
            f"another device plugin gives out GPU {_numbers(ours)} as {resource}{use}: whoever "
            "gets one knows of no turns; take these cards from it or from the profile file",
        )


def _is_of(id_: str, gpu: Gpu) -> bool:
    """NVIDIA's ids are UUIDs; with its `deviceIDStrategy: index`, numbers."""
    return id_.split(_SPLIT)[0] in (gpu.uuid, str(gpu.index))


def _strangers(facts: Facts) -> Iterator[Finding]:
    by_gpu: dict[int, list[str]] = {}
    for one in facts.strangers:
        named = f"{one.command or 'a process'} ({one.pid})" if one.pid else "one unnamed"
        keeps = ", which keeps the driver's descriptors of one that is gone" if one.keeps else ""
        by_gpu.setdefault(one.gpu, []).append(named + keeps)
    for gpu, said in sorted(by_gpu.items()):
        shown = ", ".join(said[:_MANY]) + (f" and {len(said) - _MANY} more" * (len(said) > _MANY))
        words = f"GPU {gpu} is used by processes of no workload here: {shown}"
        yield Finding(Aspect.EXCLUSIVE, "ForeignProcesses", words)


def _openings(facts: Facts) -> Iterator[Finding]:
    """Only together: the runtime sees the variable, and the variable opens cards."""
    if "nvidia" in facts.default_runtime and facts.open_to_environment:
        yield Finding(
            Aspect.EXCLUSIVE,
            "RuntimeOpensGpus",
            f"every container goes through containerd's default runtime {facts.default_runtime}, "
            "which opens GPUs to whoever sets NVIDIA_VISIBLE_DEVICES (or has an image that does), "
            "without a seat; make runc the default, or set "
            "accept-nvidia-visible-devices-envvar-when-unprivileged = false",
        )


def _missing(facts: Facts) -> Iterator[Finding]:
    for group, gpus in sorted(facts.missing.items()):
        words = (
            f"group {group} lists GPU {_numbers(gpus)}, which is not there: nobody gets a seat on "
            "it; mend the card or the profile file, then start the agent and the device plugin anew"
        )
        yield Finding(Aspect.PARKABLE, "CardMissing", words)


def _old_driver(facts: Facts) -> Iterator[Finding]:
    major = facts.driver.split(".")[0]
    if major.isdecimal() and int(major) < OLDEST_DRIVER:
        words = (
            f"the NVIDIA driver is {facts.driver}, needed is {OLDEST_DRIVER} or newer: nothing on "
            "these cards can be parked"
        )
        yield Finding(Aspect.PARKABLE, "DriverTooOld", words)


def _ailing(facts: Facts) -> Iterator[Finding]:
    for gpu, ailments in sorted(facts.ailments.items()):
        for one in ailments:
            then = "; it is given to nobody meanwhile" if one.sick else ""
            yield Finding(Aspect.HEALTHY, one.name, f"GPU {gpu}: {one.words}{then}")


def _setups(facts: Facts) -> Iterator[Finding]:
    split = sorted(gpu for gpu, setup in facts.setups.items() if setup.mig)
    if split:
        words = f"GPU {_numbers(split)} is in MIG mode: a seat is of whole cards; turn MIG off"
        yield Finding(Aspect.PARKABLE, "MigMode", words)
    one_only = sorted(gpu for gpu, setup in facts.setups.items() if setup.exclusive)
    if one_only:
        words = (
            f"GPU {_numbers(one_only)} is in an exclusive compute mode: a tenant that is parked "
            "with its context would keep all others out; set the mode to DEFAULT"
        )
        yield Finding(Aspect.PARKABLE, "ExclusiveComputeMode", words)
    if facts.mps:
        words = (
            f"NVIDIA's multi-process service runs here (process {_numbers(facts.mps)}): contexts "
            "are its, not the workloads', and cannot be parked; stop it"
        )
        yield Finding(Aspect.PARKABLE, "MultiProcessService", words)


def _cdi(facts: Facts, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """A spec that was written before a card was changed names cards that are not here."""
    if facts.cdi_devices is None:
        return
    named = {name.rpartition("=")[2] for name in facts.cdi_devices}
    missing = sorted(g.index for g in gpus if not named & {g.uuid, str(g.index), "all"})
    if missing:
        words = (
            f"NVIDIA's CDI specs do not name GPU {_numbers(missing)}: containers on it get no "
            "driver libraries; write them anew with nvidia-ctk cdi generate"
        )
        yield Finding(Aspect.PARKABLE, "CdiSpecOutdated", words)


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"
