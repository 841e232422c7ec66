"""
What the agent writes down about a workload before it acts, and the bytes it becomes.

Called by: the journal. Rule: every version ever written stays readable (tests hold a golden file of
each); a record that does not carry its own digest is not believed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from kybernate.model.gpu import Seat
from kybernate.model.ids import GpuUuid, PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import Desired, ParkMechanism, State, WorkloadClass

VERSION = 1


class Mark(StrEnum):
    """How far a workload's story has come. Each is written before the step after it begins."""

    HELD = "held"  # its first process waits at the exec FIFO
    STARTING = "starting"  # the FIFO is being opened
    ACTIVE = "active"
    PARKING = "parking"  # locked or about to be; VRAM is whole
    COPIED = "copied"  # the pool's copy is sealed; VRAM is being released
    PARKED = "parked"
    DEMOTING = "demoting"  # a copy is being made in the cellar; the pool's is whole
    DEMOTED = "demoted"  # the cellar's copy is durable and verified; the pool's is going
    PROMOTING = "promoting"  # a copy is being made in the pool; the one below is whole
    PROMOTED = "promoted"  # the pool's copy is sealed; the one below is going
    STORING = "storing"  # a copy is being made in the depot; the cellar's is whole
    STORED = "stored"  # every byte of the depot's was read back; the cellar's is going
    FETCHING = "fetching"  # a copy is being made in the cellar; the depot's is whole
    FETCHED = "fetched"  # the cellar's copy is durable and verified; the depot's is going
    RESUMING = "resuming"  # contents are coming in; the copy they come from is whole
    VERIFIED = "verified"  # VRAM is whole again; unlocked or about to be
    SEALING = "sealing"  # a draft is being made; parked beneath
    SEALED = "sealed"  # the checkpoint is whole on the disk; the workload is parked as before
    WAKING = "waking"  # the checkpoint is claimed; its contents are coming into the pool
    RESTORING = "restoring"  # contents are in the pool; the container is being made from the image
    QUARANTINED = "quarantined"


STATES: Mapping[Mark, State] = {
    Mark.HELD: State.WAITING,
    Mark.STARTING: State.ACTIVATING,
    Mark.ACTIVE: State.ACTIVE,
    Mark.PARKING: State.PARKING,
    Mark.COPIED: State.PARKING,
    Mark.PARKED: State.PARKED,
    Mark.DEMOTING: State.PARKED,
    Mark.DEMOTED: State.PARKED,
    Mark.PROMOTING: State.PARKED,
    Mark.PROMOTED: State.PARKED,
    Mark.STORING: State.PARKED,
    Mark.STORED: State.PARKED,
    Mark.FETCHING: State.PARKED,
    Mark.FETCHED: State.PARKED,
    Mark.RESUMING: State.ACTIVATING,
    Mark.VERIFIED: State.ACTIVATING,
    Mark.SEALING: State.SEALING,
    Mark.SEALED: State.SEALING,
    Mark.WAKING: State.WAKING,
    Mark.RESTORING: State.WAKING,
    Mark.QUARANTINED: State.QUARANTINED,
}


class Unreadable(Exception):
    """These bytes are not a record that was ever sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the pod asked for, kept here so that a restart needs no API server. Seconds, bytes."""

    resource: ResourceName
    vram: int
    workload_class: WorkloadClass = WorkloadClass.INFERENCE
    priority: int = 0
    min_runtime: float | None = None
    idle_after: float | None = None
    parkable: bool = True
    barred_reason: str = ""  # a Reason's name: why it must not start on the seat it was given
    barred_detail: str = ""
    desired: Desired = Desired.AUTO
    pinned: bool = False
    park: ParkMechanism = ParkMechanism.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One workload. Times are seconds since the epoch; None means never or not now."""

    key: WorkloadKey
    uid: PodUid
    seat: Seat
    container: str
    container_id: str
    pid: int
    pid_started: int  # clock ticks after boot: tells a process from a later one of the same number
    exec_fifo: str
    boot: str  # the machine's boot id
    terms: Terms
    cards: tuple[GpuUuid, ...] = ()  # of its group, in order; empty: written before this was kept
    held_image: str = ""  # what /proc/PID/cmdline showed while the process was held, hashed
    mark: Mark = Mark.HELD
    generation: int = 0  # goes up with every write
    since: float = 0.0
    wanted_since: float | None = None
    active_since: float | None = None
    last_active: float | None = None
    asked_to_park: bool = False
    seconds_in: Mapping[str, float] = field(default_factory=dict)
    checkpoint: str = ""  # the name of the one that is being sealed, or that it is woken from
    gpu_state: str = ""  # what the mechanism needs to adopt its processes, while they are made
    lowered: str = ""  # the token of the copy below the pool; empty: its contents are not there
    stored: bool = False  # that copy is in the depot, not in the cellar


# Not written while empty: the bytes stay those of the records before there were such fields.
_OPTIONAL = ("cards", "checkpoint", "gpu_state", "lowered", "stored")


def encode(record: Record) -> bytes:
    """The sealed form: version, digest, record."""
    body = asdict(record)
    body["key"] = str(record.key)
    body["seat"] = record.seat.id
    body["mark"] = record.mark.value
    for name in _OPTIONAL:
        if not body[name]:
            del body[name]
    if not record.terms.pinned:
        del body["terms"]["pinned"]
    body["terms"]["workload_class"] = record.terms.workload_class.value
    body["terms"]["desired"] = record.terms.desired.value
    body["terms"]["park"] = record.terms.park.value
    if record.terms.park is ParkMechanism.AUTO:  # likewise not written
        del body["terms"]["park"]
    sealed = {"version": VERSION, "digest": _digest(body), "record": body}
    return orjson.dumps(sealed, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def decode(content: bytes) -> Record:
    """The record. Raises Unreadable, saying what is wrong."""
    try:
        sealed = orjson.loads(content)
        version, digest, body = sealed["version"], sealed["digest"], sealed["record"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"not a record: {error}") from error
    if version != VERSION:
        raise Unreadable(f"version {version} (this agent reads {VERSION})")
    if digest != _digest(body):
        raise Unreadable("its digest does not match")
    try:
        return _read(body)
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"a field is wrong: {error}") from error


def _read(body: dict[str, Any]) -> Record:
    fields = dict(body)
    fields["key"] = WorkloadKey.parse(fields["key"])
    fields["seat"] = Seat.parse(fields["seat"])
    fields["mark"] = Mark(fields["mark"])
    fields["cards"] = tuple(fields.get("cards", ()))
    fields["terms"] = _read_terms(fields["terms"])
    return Record(**fields)


def _read_terms(body: dict[str, Any]) -> Terms:
    fields = dict(body)
    fields["workload_class"] = WorkloadClass(fields["workload_class"])
    fields["desired"] = Desired(fields["desired"])
    fields["park"] = ParkMechanism(fields.get("park", ParkMechanism.AUTO))
    return Terms(**fields)


def _digest(body: Mapping[str, Any]) -> str:
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()
