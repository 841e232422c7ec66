"""
`CheckpointRequest` to values and back: somebody asks once for a checkpoint of a workload.

Called by: the controller (`controller/checkpointing.py`), `kyb checkpoint` (`new_object`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from kybernate.api import duration, fields, names, requests
from kybernate.api.fields import Reader
from kybernate.api.requests import RequestStatus, Times
from kybernate.model.ids import WorkloadKey

KIND = "CheckpointRequest"


class Leave(StrEnum):
    """What becomes of the workload once it is sealed."""

    RUNNING = "Running"
    PARKED = "Parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the agent is. Sizes are bytes; `total` is 0 while it is not known."""

    phase: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float = 0.0

    @property
    def percent(self) -> int:
        """Of the bytes."""
        return min(100, 100 * self.done // self.total) if self.total else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointStatus(RequestStatus):
    """`checkpoint` is the name it gets, chosen before the agent is asked."""

    checkpoint: str = ""
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRequest:
    """One request. `name` is what its author wants the checkpoint to be called, or empty."""

    key: tuple[str, str]  # (namespace, name)
    uid: str
    workload: WorkloadKey
    times: Times
    name: str = ""
    leave: Leave = Leave.RUNNING
    by_clock: bool = False  # a CheckpointPolicy's clock made it
    gold: bool = False  # many replicas may start from what is sealed
    status: CheckpointStatus = CheckpointStatus()


def read_request(obj: Mapping[str, Any]) -> CheckpointRequest:
    """Raises Malformed with every fault and its path."""
    metadata = obj["metadata"]
    whole = {"spec": obj.get("spec") or {}, "status": obj.get("status") or {}}
    return fields.read(whole, "", lambda reader: _request(reader, metadata))


def write_status(status: CheckpointStatus) -> dict[str, Any]:
    """The whole status for a merge patch."""
    written = requests.write_status(status) | {"checkpoint": status.checkpoint or None}
    return written | {"progress": _write_progress(status.progress)}


def new_object(
    workload: WorkloadKey,
    *,
    name: str = "",
    leave: Leave = Leave.RUNNING,
    within: float = 0.0,
    forget_after: float = 0.0,
    gold: bool = False,
) -> dict[str, Any]:
    """A request without a name of its own: the API server gives it one. Seconds of 0: its own."""
    spec: dict[str, Any] = {"workload": workload.name, "leave": leave.value}
    if name:
        spec["name"] = name
    if gold:
        spec["gold"] = True
    if within:
        spec["within"] = duration.format_seconds(round(within))
    if forget_after:
        spec["forgetAfter"] = duration.format_seconds(round(forget_after))
    return {
        "apiVersion": names.API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": workload.namespace, "generateName": f"{workload.name[:200]}-"},
        "spec": spec,
    }


def by_clock(name: str, workload: WorkloadKey, owner: str) -> dict[str, Any]:
    """The metadata of one that a CheckpointPolicy's clock makes; it goes with its GpuWorkload, of
    which `owner` is the uid."""
    reference = {
        "apiVersion": names.API_VERSION,
        "kind": "GpuWorkload",
        "name": workload.name,
        "uid": owner,
    }
    return {
        "namespace": workload.namespace,
        "name": name,
        "labels": {names.BY_CLOCK: "true"},
        "ownerReferences": [reference],
    }


def _request(reader: Reader, metadata: Mapping[str, Any]) -> CheckpointRequest:
    spec, status = reader.below("spec"), reader.below("status")
    namespace = metadata.get("namespace", "default")
    return CheckpointRequest(
        key=(namespace, metadata["name"]),
        uid=metadata.get("uid", ""),
        workload=WorkloadKey(namespace, spec.text("workload")),
        times=requests.read_times(spec, metadata),
        name=spec.text("name", ""),
        leave=spec.one_of("leave", Leave, Leave.RUNNING),
        by_clock=names.BY_CLOCK in (metadata.get("labels") or {}),
        gold=spec.flag("gold"),
        status=_status(status),
    )


def _status(reader: Reader) -> CheckpointStatus:
    return CheckpointStatus(
        **asdict(requests.read_status(reader)),
        checkpoint=reader.text("checkpoint", ""),
        progress=_progress(reader.below("progress")) if reader.value.get("progress") else None,
    )


def _progress(reader: Reader) -> Progress:
    return Progress(
        phase=reader.text("phase", ""),
        done=reader.integer("bytesDone", 0),
        total=reader.integer("bytesTotal", 0),
        seconds_left=reader.seconds("secondsLeft", 0.0),
    )


def _write_progress(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "phase": progress.phase,
        "bytesDone": progress.done,
        "bytesTotal": progress.total,
        "percent": progress.percent,
        "secondsLeft": round(progress.seconds_left, 3),
    }
