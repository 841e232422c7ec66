"""What is to be done next for one CheckpointRequest. Pure; `checkpointing` carries it out.

Rule: a request is about one life of a pod, the one it found first. Rule: of two requests for one
workload the second waits; each gets a checkpoint of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from controller.steps import Fail, Nothing, Remove, by_its_times
from kybernate.api.checkpointrequests import CheckpointRequest
from kybernate.api.requests import RequestState
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.workload import State

COMES_YET = 10.0  # seconds for a GpuWorkload, which follows its pod by a moment
SOON = 2.0  # seconds until the next look at what only time or somebody else changes

GOLD_NAME = 150  # characters of a workload's name, in that of a gold image

AWAY = "AgentAway"
BUSY = "AgentBusy"
ANOTHER = "AnotherRequest"
NO_SEAT = "NoSeat"
NOT_STARTED = "NotStarted"
ASKED = "AgentAsked"
SEALED = "Sealed"
REFUSED = "AgentRefused"
NOT_SEALED = "NotSealed"
NAME_TAKEN = "NameTaken"
NO_WORKLOAD = "NoSuchWorkload"
GONE = "WorkloadGone"
QUARANTINED = "WorkloadQuarantined"
UNREADABLE = "Unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The workload as its GpuWorkload shows it. `state` is None before an agent knew it."""

    pod_uid: PodUid
    node: NodeName | None = None
    state: State | None = None
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What else matters: the checkpoints there are, and the request that is served before."""

    checkpoints: Collection[str] = ()
    ahead: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now, and why; look again in `SOON`."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Have this node's agent seal this life of the workload under this name."""

    node: NodeName
    pod_uid: PodUid
    checkpoint: str


Step = Nothing | Remove | Hold | Fail | Ask


def plan(request: CheckpointRequest, target: Target | None, around: Around, now: float) -> Step:
    """The next step. `now` is the wall clock, as the API server's creationTimestamp."""
    over = by_its_times(request.status, request.times, "not sealed", now)
    if over is not None:
        return over
    if target is None:
        return _absent(request, now)
    return _of_life(request, target) or _of_state(request, target, around)


def chosen_name(request: CheckpointRequest, taken: Collection[str]) -> str:
    """What the checkpoint is called: as chosen before, as asked, or the workload with the time."""
    if request.status.checkpoint or request.name:
        return request.status.checkpoint or request.name
    stamp = datetime.fromtimestamp(int(request.times.made), UTC).strftime("%Y%m%d-%H%M%S")
    most = GOLD_NAME if request.gold else 225  # its sharing domain is called by it
    plain = f"{request.workload.name[:most]}-{stamp}"
    return f"{plain}-{request.uid[:8]}" if plain in taken else plain


def order(request: CheckpointRequest) -> tuple[bool, float, str]:
    """Who is served first: whoever is being served, then whoever asked first."""
    running = request.status.state is RequestState.RUNNING
    return not running, request.times.made, request.uid


def _absent(request: CheckpointRequest, now: float) -> Step:
    name = request.workload.name
    if request.status.pod_uid:
        return Fail(GONE, f"pod {name} is gone; what was not sealed before is lost")
    words = f"spec.workload: {name!r} (expected a GpuWorkload of this namespace: kyb ps lists them)"
    if now < request.times.made + COMES_YET:
        return Hold(NO_WORKLOAD, words)
    return Fail(NO_WORKLOAD, words)


def _of_life(request: CheckpointRequest, target: Target) -> Step | None:
    bound = request.status.pod_uid
    if bound and bound != target.pod_uid:
        name = request.workload.name
        return Fail(GONE, f"pod {name} that was to be sealed is gone; another has its name now")
    if target.finished:
        return Fail(GONE, f"pod {request.workload.name} has ended; there is nothing to seal")
    return None


def _of_state(request: CheckpointRequest, target: Target, around: Around) -> Step:
    name = request.workload.name
    if target.state is State.QUARANTINED:
        return Fail(QUARANTINED, f"{name} is quarantined: its contents cannot be trusted")
    if around.ahead:
        return Hold(ANOTHER, f"waits for checkpointrequest {around.ahead}, which is for it too")
    if target.node is None or target.state is None:
        return Hold(NO_SEAT, f"{name} has no seat on a node yet")
    if target.state in (State.WAITING, State.ABSENT):
        return Hold(NOT_STARTED, f"{name} has not started yet, so there is nothing to seal")
    return _named(request, target.node, target.pod_uid, around.checkpoints)


def _named(request: CheckpointRequest, node: NodeName, uid: PodUid, taken: Collection[str]) -> Step:
    """Asked for the first time, its name must be free; asked again, it may be there already."""
    if not request.status.started and request.name in taken:
        words = f"spec.name: {request.name!r} (expected a name that no GpuCheckpoint has)"
        return Fail(NAME_TAKEN, words)
    return Ask(node, uid, chosen_name(request, taken))
