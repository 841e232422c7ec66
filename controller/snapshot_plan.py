"""
Whether a workload is due for a checkpoint by its CheckpointPolicy's clock. Pure.

Called by: `snapshotting`, which carries it out. Rules: one request at a time for a workload,
whoever made it; what is parked, or has not worked since its last checkpoint, is what that
checkpoint is; after failures the pause doubles; no moment that lies ahead of the clock is believed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from kybernate.api.checkpointrequests import CheckpointRequest
from kybernate.api.requests import RequestState
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State

LONGEST = 3600.0  # seconds between two tries after failures, unless `every` is longer
FAILURES_KEPT = 8  # finished requests; as many tell how long the pause has become
# A resume counts as work for a moment, and `since` has whole seconds.
RESUMED_S = 2.0
SHORTEST, WITHIN = 60.0, 900.0  # seconds a request may take
REMEMBERED = 86400.0  # seconds; we forget them sooner, and this is for when no policy is left

PARKED = "Parked"
NOT_RUNNING = "NotRunning"
UNCHANGED = "Unchanged"
UNDER_WAY = "UnderWay"
NOT_PARKABLE = "NotParkable"
QUARANTINED = "Quarantined"
# What people have to see to; everything else passes by itself.
OBSTACLES = frozenset({NOT_PARKABLE, QUARANTINED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A workload as its GpuWorkload shows it. Moments are seconds since the epoch.

    `uid` is the GpuWorkload's own. `worked_at` is when it was last seen busy, 0 where nobody can
    tell. `obstacle` says what keeps it from being parked, where something does.
    """

    key: WorkloadKey
    uid: str
    pod_uid: PodUid
    made: float
    state: State | None = None
    since: float = 0.0
    busy: bool = False
    worked_at: float = 0.0
    obstacle: str = ""
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What else counts: the requests for it that there are, and when its checkpoints were sealed,
    by their names."""

    requests: Collection[CheckpointRequest] = ()
    sealed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Nothing is to be done. Look again in `again` seconds, or (None) when something changes."""

    reason: str = ""
    message: str = ""
    again: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Make a request of this name, which has `within` seconds."""

    name: str
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`forget` are requests of the clock that tell nothing more."""

    step: Rest | Ask
    forget: tuple[CheckpointRequest, ...] = ()


def plan(one: Running, every: float, around: Around, now: float) -> Plan:
    """What is due. `every` is the shortest of the policies that select it; `now` the wall clock."""
    ended = sorted(
        (found for found in around.requests if found.by_clock and found.status.is_finished),
        key=_ended,
    )
    return Plan(step=_step(one, every, around, now, ended), forget=_past(ended))


def _step(
    one: Running,
    every: float,
    around: Around,
    now: float,
    ended: list[CheckpointRequest],
) -> Rest | Ask:
    """`ended` are the clock's own, oldest first."""
    waiting = next((r for r in around.requests if not r.status.is_finished), None)
    if waiting is not None:
        return Rest(reason=UNDER_WAY, message=f"checkpointrequest {waiting.key[1]} is under way")
    last = max((at for at in around.sealed.values() if at <= now), default=0.0)
    resting = _at_rest(one, last)
    if resting is not None:
        return resting
    tried = (_ended(found) for found in ended)
    since = max((at for at in (last, one.made, *tried) if at <= now), default=0.0)
    left = since + _pause(every, ended) - now
    if left > 0:
        return Rest(again=left)
    return Ask(name=_name(one, ended), within=max(SHORTEST, min(every, WITHIN)))


def _at_rest(one: Running, last: float) -> Rest | None:
    """Why no checkpoint of it would be of use, or be made; None where one would."""
    if one.finished or one.state is None:
        return Rest(reason=NOT_RUNNING, message="it does not run")
    if one.state is State.QUARANTINED:
        return Rest(reason=QUARANTINED, message="it is quarantined: its contents cannot be trusted")
    if one.state is State.PARKED:
        return Rest(reason=PARKED, message="it is parked: nothing in it changes")
    if one.state is not State.ACTIVE:
        return Rest(reason=NOT_RUNNING, message=f"it is {one.state}")
    if one.obstacle:
        return Rest(reason=NOT_PARKABLE, message=f"it cannot be parked: {one.obstacle}")
    if last and not one.busy and 0 < one.worked_at <= max(last, one.since) + RESUMED_S:
        return Rest(reason=UNCHANGED, message="it has not worked since its last checkpoint")
    return None


def _pause(every: float, ended: list[CheckpointRequest]) -> float:
    """Twice as long after each failure in a row."""
    failures = 0
    for found in reversed(ended):
        if found.status.state is RequestState.SUCCEEDED:
            break
        failures += 1
    return min(every * 2.0 ** min(failures, 30), max(every, LONGEST))


def _past(ended: list[CheckpointRequest]) -> tuple[CheckpointRequest, ...]:
    """All but the last success and the failures since; the last one always stays, for the next
    one's name is made of it."""
    successes = [n for n, r in enumerate(ended) if r.status.state is RequestState.SUCCEEDED]
    first = max(successes[-1] if successes else 0, len(ended) - FAILURES_KEPT)
    return tuple(ended[:first])


def _name(one: Running, ended: list[CheckpointRequest]) -> str:
    """The same for everybody who sees the same: of two leaders the second finds it made."""
    after = ended[-1].uid if ended else ""
    told = blake2b(f"{one.pod_uid}/{after}".encode(), digest_size=6).hexdigest()
    return f"{one.key.name[:200].rstrip('-.')}-{told}"


def _ended(request: CheckpointRequest) -> float:
    return request.status.finished
