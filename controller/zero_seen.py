"""What `zeroing` keeps of what it watches: projections of the API server's objects. Pure.

What cannot be read raises, and is left out by its reflector.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from kybernate.api import gpuworkloads, identity, names, pods
from kybernate.api.annotations import read_wishes
from kybernate.api.checkpoints import read_checkpoint
from kybernate.clients.reflector import Key
from kybernate.model.ids import PodUid
from kybernate.model.workload import Desired, ScaleToZero, State

LENGTH_S = 15.0  # of an activator's Lease that does not say
SUFFIX = "-to-zero"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One that may go to zero. `stays`: it is pinned, or kept warm."""

    uid: str
    replicas: int
    version: str
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose pod a workload is, and how it stands. `state` is None for a pod nobody told of yet."""

    pod_uid: PodUid
    state: State
    since: float
    stays: bool


@dataclass(frozen=True, slots=True)
class Wish:
    """What an activator's Lease says."""

    wanted: frozenset[Key]
    renewed: str
    length: float


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A seat pod of a Deployment."""

    deployment: str
    uid: PodUid
    leaving: bool


def request_name(deployment: str) -> str:
    """Of the CheckpointRequest for this Deployment's pod."""
    return f"{deployment}{SUFFIX}"


def may_go(obj: Mapping[str, Any]) -> Deployment | None:
    """None for a Deployment that does not ask for it."""
    spec, metadata = obj["spec"], obj["metadata"]
    template = spec["template"]
    if not pods.is_seat_pod(template):
        return None
    wishes = read_wishes((template.get("metadata") or {}).get("annotations") or {})
    if wishes.scale_to_zero is not ScaleToZero.CHECKPOINT:
        return None
    return Deployment(
        uid=metadata["uid"],
        replicas=int(spec.get("replicas", 1)),
        version=metadata["resourceVersion"],
        stays=wishes.pinned or wishes.keep_warm,
    )


def deployments_pod(obj: Mapping[str, Any]) -> PodSeen | None:
    """None for a pod of anybody else, or without a seat."""
    owner = identity.owner_of(obj)
    if owner is None or owner[0] != "Deployment" or not pods.is_seat_pod(obj):
        return None
    leaving = "deletionTimestamp" in obj["metadata"] or pods.is_finished(obj)
    return PodSeen(owner[1], PodUid(obj["metadata"]["uid"]), leaving)


def standing(obj: Mapping[str, Any]) -> Standing | None:
    """How a workload stands; None before its agent said so."""
    status, spec = gpuworkloads.read_status(obj), gpuworkloads.read_spec(obj)
    if status is None:
        return None
    asked = status.demand is not None and (status.demand.wanted or status.demand.busy)
    stays = asked or spec.desired is Desired.ACTIVE
    return Standing(spec.pod_uid, status.state, status.since, stays)


def deployments_own(obj: Mapping[str, Any]) -> tuple[str, float] | None:
    """(Deployment, when it was sealed) of a checkpoint that its next pod may wake from."""
    found = read_checkpoint(obj)
    kind, _, name = found.workload.partition(".")
    free = found.ready and found.claim is None and not found.gold
    return (name, found.sealed_at) if free and kind == "deployment" else None


def sealing(obj: Mapping[str, Any]) -> str | None:
    """The state of a request of ours; None for anybody else's."""
    if not obj["metadata"]["name"].endswith(SUFFIX):
        return None
    return str((obj.get("status") or {}).get("state", ""))


def wish(obj: Mapping[str, Any]) -> Wish | None:
    """What an activator's Lease says; None for any other Lease. What cannot be read wants nothing:
    it is written by activators, and bounded by what one object may hold."""
    metadata = obj["metadata"]
    if not metadata["name"].startswith(names.ACTIVATOR_LEASE_PREFIX):
        return None
    text = (metadata.get("annotations") or {}).get(names.WANTED, "[]")
    spec = obj.get("spec") or {}
    return Wish(
        frozenset(_pairs(orjson.loads(text))),
        str(spec.get("renewTime", "")),
        float(spec.get("leaseDurationSeconds") or LENGTH_S),
    )


def _pairs(found: Any) -> Iterable[Key]:
    return ((str(namespace), str(name)) for namespace, name in found)
