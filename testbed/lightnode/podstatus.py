"""
A pod's status, from what became of its container. Pure.

Called by: `podlife`. Rule: the whole of what the kubelet owns is given each time, for server-side
apply; conditions of others (the scheduler's, the agent's gate) are not ours to name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kybernate.api.timestamps import rfc3339
from testbed.lightnode.podspec import Obj

RUNTIME = "light"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """It runs, or is held before its first instruction."""

    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """It ended. `reason` empty: told by the exit code."""

    exit_code: int
    since: float
    at: float
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """It does not exist now."""

    reason: str
    message: str = ""


ContainerState = Running | Ended | Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """Everything the status is made of. `failure` (reason, message): never admitted, or evicted."""

    phase: str
    started_at: float
    host_ip: str
    pod_ip: str = ""
    container: ContainerState | None = None
    last: Ended | None = None
    container_id: str = ""
    restarts: int = 0
    failure: tuple[str, str] | None = None


def status(pod: Obj, state: PodState, name: str, image: str) -> dict[str, Any]:
    """`status` of the pod, our fields of it."""
    body: dict[str, Any] = {
        "phase": state.phase,
        "hostIP": state.host_ip,
        "startTime": rfc3339(state.started_at),
        "conditions": _conditions(pod, state),
    }
    if state.pod_ip:
        body |= {"podIP": state.pod_ip, "podIPs": [{"ip": state.pod_ip}]}
    if state.failure:
        body["reason"], body["message"] = state.failure
    if state.container is not None:
        body["containerStatuses"] = [_container(state, state.container, name, image)]
    return body


def _container(state: PodState, container: ContainerState, name: str, image: str) -> dict[str, Any]:
    running = isinstance(container, Running)
    body: dict[str, Any] = {
        "name": name,
        "image": image,
        "imageID": "",
        "ready": running,
        "started": running,
        "restartCount": state.restarts,
        "state": _state(container, state.container_id),
    }
    if state.container_id:
        body["containerID"] = _full(state.container_id)
    if state.last is not None:
        body["lastState"] = _state(state.last, "")
    return body


def _state(container: ContainerState, container_id: str) -> dict[str, Any]:
    match container:
        case Running(since=since):
            return {"running": {"startedAt": rfc3339(since)}}
        case Waiting(reason=reason, message=message):
            words = {"reason": reason, "message": message}
            return {"waiting": {key: text for key, text in words.items() if text}}
        case Ended():
            reason = "Completed" if container.exit_code == 0 else "Error"
            ended = {
                "exitCode": container.exit_code,
                "reason": container.reason or reason,
                "startedAt": rfc3339(container.since),
                "finishedAt": rfc3339(container.at),
            }
            if container_id:
                ended["containerID"] = _full(container_id)
            return {"terminated": ended}


def _full(container_id: str) -> str:
    return f"{RUNTIME}://{container_id}"


def _conditions(pod: Obj, state: PodState) -> list[Mapping[str, str]]:
    at = rfc3339(_since(state))
    runs = isinstance(state.container, Running)
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()]
    held = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or ()}
    ready = runs and all(held.get(gate) == "True" for gate in gates)
    truths = {
        "PodReadyToStartContainers": bool(state.pod_ip),
        "Initialized": state.failure is None,
        "ContainersReady": runs,
        "Ready": ready,
    }
    done = state.phase == "Succeeded"
    return [_condition(kind, truth, at, done) for kind, truth in truths.items()]


def _condition(kind: str, truth: bool, at: str, done: bool) -> Mapping[str, str]:
    body = {"type": kind, "status": str(truth), "lastTransitionTime": at}
    if done and not truth:
        body["reason"] = "PodCompleted"
    return body


def _since(state: PodState) -> float:
    match state.container:
        case Running(since=since):
            return since
        case Ended(at=at):
            return at
        case _:
            return state.started_at
