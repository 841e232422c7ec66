"""
`RestoreRequest` to values and back: somebody asks once that a checkpoint wakes.

Called by: the controller (`controller/restoring.py`), the webhook (which owners were asked to wake
what), `kyb restore` (`new_object`). Rule: what wakes is either a pod made from a template, or one
more pod of a Deployment or StatefulSet.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from kybernate.api import duration, fields, names, requests
from kybernate.api.fields import Reader
from kybernate.api.requests import RequestStatus, Times

KIND = "RestoreRequest"


class OwnerKind(StrEnum):
    """What can be scaled for one more pod."""

    DEPLOYMENT = "Deployment"
    STATEFULSET = "StatefulSet"


@dataclass(frozen=True, slots=True)
class Owner:
    """One of them, of the request's namespace."""

    kind: OwnerKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The pod to make: `template` is a PodTemplateSpec as it was written."""

    name: str
    template: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreStatus(RequestStatus):
    """`pod` is the one that wakes, once it is known."""

    pod: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """One request; `owner` is None where a pod of its own is made."""

    key: tuple[str, str]  # (namespace, name)
    uid: str
    checkpoint: str
    times: Times
    pod: Template | None = None
    owner: Owner | None = None
    status: RestoreStatus = RestoreStatus()


def read_request(obj: Mapping[str, Any]) -> RestoreRequest:
    """Raises Malformed with every fault and its path."""
    metadata = obj["metadata"]
    whole = {"spec": obj.get("spec") or {}, "status": obj.get("status") or {}}
    return fields.read(whole, "", lambda reader: _request(reader, metadata))


def write_status(status: RestoreStatus) -> dict[str, Any]:
    """The whole status for a merge patch."""
    return requests.write_status(status) | {"pod": status.pod or None}


def new_object(
    namespace: str,
    checkpoint: str,
    what: Owner | Template,
    *,
    within: float = 0.0,
) -> dict[str, Any]:
    """A request without a name of its own, unless its pod is to have one."""
    spec: dict[str, Any] = {"checkpoint": checkpoint}
    if isinstance(what, Owner):
        spec["owner"] = {"kind": what.kind.value, "name": what.name}
    else:
        named = {"name": what.name} if what.name else {}
        spec["pod"] = {**named, "template": dict(what.template)}
    if within:
        spec["within"] = duration.format_seconds(round(within))
    return {
        "apiVersion": names.API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": namespace, "generateName": f"{checkpoint[:200]}-"},
        "spec": spec,
    }


def _request(reader: Reader, metadata: Mapping[str, Any]) -> RestoreRequest:
    spec = reader.below("spec")
    return RestoreRequest(
        key=(metadata.get("namespace", "default"), metadata["name"]),
        uid=metadata.get("uid", ""),
        checkpoint=spec.text("checkpoint"),
        times=requests.read_times(spec, metadata),
        pod=_template(spec.below("pod"), metadata["name"]) if spec.value.get("pod") else None,
        owner=_owner(spec.below("owner")) if spec.value.get("owner") else None,
        status=_status(reader.below("status")),
    )


def _template(reader: Reader, otherwise: str) -> Template:
    return Template(
        name=reader.text("name", otherwise), template=dict(reader.below("template").value)
    )


def _owner(reader: Reader) -> Owner:
    return Owner(reader.one_of("kind", OwnerKind), reader.text("name"))


def _status(reader: Reader) -> RestoreStatus:
    return RestoreStatus(
        **asdict(requests.read_status(reader)),
        pod=reader.text("pod", ""),
    )
