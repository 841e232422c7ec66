"""Where a pod asks for seats: which container, of which kind, in limits or only in requests. Pure.

This reads pods that nobody has checked yet, so it takes any JSON and never raises; `validation`
says what is wrong with what is found here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kybernate.api import names


class ContainerList(StrEnum):
    """The member of `spec` a container stands in."""

    APP = "containers"
    INIT = "initContainers"
    EPHEMERAL = "ephemeralContainers"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatClaim:
    """One container's wish for seats of one resource, as written; None where it is absent."""

    container: str
    among: ContainerList
    index: int
    resource: str
    limit: object = None
    request: object = None

    @property
    def path(self) -> str:
        """The field to point at: the limit, or the request where there is no limit."""
        field = "requests" if self.limit is None else "limits"
        return f"spec.{self.among}[{self.index}].resources.{field}[{self.resource}]"


def claims(pod: Mapping[str, Any]) -> tuple[SeatClaim, ...]:
    """Every claim of the pod, in the order of its containers."""
    spec = _mapping(pod.get("spec"))
    return tuple(claim for among in ContainerList for claim in _of_list(spec, among))


def holders(
    pod: Mapping[str, Any],
) -> tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...]:
    """The containers that ask for a seat, with their places in the pod; a good pod has one."""
    found = dict.fromkeys(claim.index for claim in claims(pod) if claim.among is ContainerList.APP)
    return tuple(
        (("spec", ContainerList.APP.value, str(index)), pod["spec"]["containers"][index])
        for index in found
    )


def _of_list(spec: Mapping[str, Any], among: ContainerList) -> Iterator[SeatClaim]:
    containers = spec.get(among)
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        resources = _mapping(_mapping(container).get("resources"))
        limits, requests = _mapping(resources.get("limits")), _mapping(resources.get("requests"))
        for resource in sorted({*limits, *requests}):
            if names.is_seat_resource(resource):
                yield SeatClaim(
                    container=str(_mapping(container).get("name", "")),
                    among=among,
                    index=index,
                    resource=resource,
                    limit=limits.get(resource),
                    request=requests.get(resource),
                )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
