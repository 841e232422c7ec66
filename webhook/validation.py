"""What is wrong with a seat pod, all of it at once. Pure; called by `admission`.

It judges the result of every mutation, ours included, because ours fails open: a pod that slipped
past `defaulting` is refused here instead of running unseen by the agent.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kybernate.api import annotations, names, quantity
from kybernate.api.errors import Fault, Malformed
from webhook import hooks, preload, probes, seats
from webhook.seats import ContainerList, SeatClaim

_SCHEMA = "one seat for exactly one container of the pod"


def faults(pod: Mapping[str, Any], schedulers: Collection[str]) -> tuple[Fault, ...]:
    """Everything that keeps the pod out; empty for a good one and for one that wants no seat.

    `schedulers` are the accepted values of `spec.schedulerName`.
    """
    claims = seats.claims(pod)
    if not claims:
        return ()
    return (
        *_seat_faults(claims),
        *_spec_faults(pod["spec"], schedulers),
        *_environment_faults(pod["spec"]),
        *_annotation_faults(pod.get("metadata") or {}),
        *probes.faults(pod),
        *hooks.faults(pod),
        *preload.faults(pod),
    )


def _seat_faults(claims: tuple[SeatClaim, ...]) -> Iterator[Fault]:
    for claim in claims:
        if claim.among is not ContainerList.APP:
            yield Fault(claim.path, claim.limit or claim.request, f"no seat in {claim.among}")
        elif claim.limit is None:
            yield Fault(
                claim.path, claim.request, "the seat in limits; requests follow by themselves"
            )
        else:
            yield from _count_faults(claim)
    wanted = [claim for claim in claims if claim.among is ContainerList.APP]
    for extra in wanted[1:]:
        first = f"{wanted[0].container} asks for {wanted[0].resource}"
        yield Fault(extra.path, extra.limit or extra.request, f"{_SCHEMA}: {first}")


def _count_faults(claim: SeatClaim) -> Iterator[Fault]:
    try:
        count = quantity.parse_count(str(claim.limit))
    except ValueError:
        count = 0
    if count != 1:
        yield Fault(claim.path, claim.limit, "1; a wider seat is another resource")


def _spec_faults(spec: Mapping[str, Any], schedulers: Collection[str]) -> Iterator[Fault]:
    if spec.get("nodeName"):
        yield Fault("spec.nodeName", spec["nodeName"], "no node: the scheduler chooses among seats")
    scheduler = spec.get("schedulerName") or ""
    if scheduler not in schedulers:
        yield Fault("spec.schedulerName", scheduler, " or ".join(sorted(schedulers)))
    runtime_class = spec.get("runtimeClassName")
    if runtime_class != names.RUNTIME_CLASS:
        yield Fault("spec.runtimeClassName", runtime_class, names.RUNTIME_CLASS)


def _environment_faults(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """What Allocate sets, a pod's own `env` would override: it would speak for another's seat."""
    for among in ContainerList:
        containers = spec.get(among)
        for index, container in enumerate(containers if isinstance(containers, list) else ()):
            given = container.get("env") if isinstance(container, dict) else None
            for at, one in enumerate(given if isinstance(given, list) else ()):
                name = one.get("name") if isinstance(one, dict) else None
                if isinstance(name, str) and name in names.SEAT_ENVIRONMENT:
                    path = f"spec.{among}[{index}].env[{at}].name"
                    yield Fault(path, name, "another name: the device plugin sets it")


def _annotation_faults(metadata: Mapping[str, Any]) -> Iterator[Fault]:
    given = metadata.get("annotations") or {}
    for name in sorted(names.OUTPUT_ANNOTATIONS & given.keys()):
        yield Fault(annotations.path(name), given[name], "nothing: the node agent writes it")
    try:
        annotations.read_wishes(given)
    except Malformed as problem:
        yield from problem.faults
