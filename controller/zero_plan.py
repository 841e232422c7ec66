"""What is to be done next for one Deployment that may go to zero. Pure; `zeroing` carries it out.

Rule: a Deployment of one, asked for by `kyb.ai/scale-to-zero: checkpoint` in its pod template; of
several, none has a state that the next pod could be given. Rule: nothing goes to zero without a
checkpoint of what it is at that moment, nor while somebody waits for it or asks that it stays.
"""

from dataclasses import dataclass

from kybernate.api.requests import RequestState
from kybernate.model.ids import PodUid
from kybernate.model.workload import State

# A checkpoint is of the workload as it is where it has not been active since. It is parked again
# right after it was sealed; what comes later than this has been active in between.
SEALED_S = 5.0
MOVED_S = 15.0  # until a pod that was deleted is gone, and its claim free; until agents tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The Deployment's pod, as its agent says. `since` is when its state began, epoch seconds."""

    name: str
    uid: PodUid
    state: State = State.ABSENT
    since: float = 0.0
    stays: bool = False  # pinned, kept warm, or somebody asked that it is active


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """Our request that the pod is sealed. `at` is when the checkpoint was complete."""

    pod_uid: PodUid
    state: RequestState
    message: str = ""
    at: float = 0.0  # 0 where there is no checkpoint that can be woken from
    checkpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What there is now. `pods` are those of the Deployment that are not leaving; `leaving` counts
    the others. `candidate` is the checkpoint its next pod would wake from, or empty."""

    replicas: int
    wanted: bool
    pods: tuple[Pod, ...] = ()
    leaving: int = 0
    sealed: Sealed | None = None
    candidate: str = ""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Look again in so many seconds, or when something changes."""

    again: float | None = None


@dataclass(frozen=True, slots=True)
class Seal:
    """Ask for a checkpoint of this pod; `instead` says that a former request is to go."""

    pod: Pod
    instead: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Have it run so many pods, and say why."""

    replicas: int
    why: str


Step = Nothing | Seal | Scale


def plan(around: Around, now: float, after: float) -> Step:
    """The next step. `now` is the wall clock, `after` the seconds it has to be parked."""
    if around.replicas == 0:
        return _back(around)
    if around.replicas != 1 or len(around.pods) != 1:
        return Nothing()
    pod = around.pods[0]
    if pod.state is State.QUARANTINED and around.wanted:
        come = around.candidate or "nothing, cold"
        return Scale(0, f"pod {pod.name} cannot be brought back; the next starts from {come}")
    if around.wanted or pod.stays or pod.state is not State.PARKED:
        return Nothing()
    return _away(pod, around.sealed, now, after)


def _back(around: Around) -> Step:
    if not around.wanted:
        return Nothing()
    if around.pods or around.leaving:
        return Nothing(MOVED_S)  # they change before that, and it is looked at again
    come = f"checkpoint {around.candidate}" if around.candidate else "nothing: a cold start"
    return Scale(1, f"somebody asks for it; its pod starts from {come}")


def _away(pod: Pod, sealed: Sealed | None, now: float, after: float) -> Step:
    mine = sealed if sealed is not None and sealed.pod_uid == pod.uid else None
    if mine is not None and mine.at and abs(pod.since - mine.at) <= SEALED_S:
        return Scale(0, f"nobody has asked for it; checkpoint {mine.checkpoint} has its state")
    if mine is not None and mine.at > pod.since and now - mine.at < MOVED_S:
        return Nothing(MOVED_S)  # sealed just now, and its agent has not told yet how it stands
    if mine is not None and mine.state not in (RequestState.SUCCEEDED, RequestState.FAILED):
        return Nothing()
    left = pod.since + after - now
    if left > 0:
        return Nothing(left)
    if mine is not None and mine.state is RequestState.FAILED:
        return Nothing()  # it is forgotten after its hour, and then tried anew
    return Seal(pod, instead=sealed is not None)
