"""CheckpointRequests: the agent of the workload's node is asked, followed and believed.

Level-based: what a request still needs is planned from what is (`checkpoint_plan`). Rule: the agent
is asked with the request's UID as idempotency key, so asking again after a lost connection, another
leader's start or a restart makes no second checkpoint. Rule: what is under way is not called back
when its request is deleted or its leader changes; the agent finishes it.
"""

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller import checkpoint_plan as plans
from controller.answers import Answers
from controller.checkpoint_plan import Around, Ask, Hold, Step, Target
from controller.duties import Duty
from controller.sealers import Asked, Sealer
from controller.steps import Fail, Nothing, Remove
from kybernate.api import checkpointrequests, fields, gpuworkloads, requests, timestamps
from kybernate.api.checkpointrequests import CheckpointRequest, CheckpointStatus, Leave, Progress
from kybernate.api.requests import RequestState
from kybernate.clients import agents
from kybernate.clients.agents import AgentAway, AgentRefused, Outcome
from kybernate.clients.clock import Clock
from kybernate.clients.errors import ApiError
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Key, Reflector
from kybernate.clients.resources import CHECKPOINTREQUESTS, GPUCHECKPOINTS, GPUWORKLOADS
from kybernate.model.ids import NodeName, WorkloadKey
from kybernate.model.verdict import Reason
from kybernate.runtime.logs import get_logger

THREADS = 16  # each follows one agent; further requests wait for one of them
UNSYNCED = 0.5  # seconds until the next look while a first list is under way
TOLD_EVERY = 1.0  # seconds between two writes of progress
# What the agent says no to now and yes to later.
PASSING = frozenset({Reason.BUSY.name, Reason.UNKNOWN_WORKLOAD.name})


class Checkpointing:
    """Watches requests, workloads and checkpoints; the leader has agents seal."""

    def __init__(self, kube: Kube, clock: Clock, sealer: Sealer) -> None:
        self._clock, self._sealer = clock, sealer
        self._answers = Answers(kube, CHECKPOINTREQUESTS)
        self._requests = Reflector(
            kube,
            CHECKPOINTREQUESTS,
            project=checkpointrequests.read_request,
            on_change=self._changed,
        )
        self._targets = Reflector(kube, GPUWORKLOADS, project=_target)
        self._checkpoints: Reflector[float] = Reflector(kube, GPUCHECKPOINTS, project=_made)
        self.watches = (self._requests, self._targets, self._checkpoints)
        self.duty: Duty[Key] = Duty(
            "checkpointing", clock, self.look, self._requests.items, THREADS
        )
        self._lock = threading.Lock()
        self._sealing: set[WorkloadKey] = set()
        self._ended: dict[Key, str] = {}  # uid of what we ended: the watch may not show it yet
        self._log = get_logger(duty="checkpointing")

    def look(self, key: Key) -> float | None:
        """Take the next step; seconds until the next look. Raises AgentAway, ApiError."""
        if not all(watch.synced for watch in self.watches):
            return UNSYNCED
        request = self._requests.get(key)
        if request is None:
            return None
        if self._ended.get(key) == request.uid and not request.status.is_finished:
            return plans.SOON
        target = self._targets.get((request.workload.namespace, request.workload.name))
        step = plans.plan(request, target, self._around(request), self._clock.now())
        return self._take(request, step)

    def _take(self, request: CheckpointRequest, step: Step) -> float | None:
        match step:
            case Nothing(again):
                return again
            case Remove():
                self._answers.remove(request.key, request.uid)
                return None
            case Hold(reason, message):
                self._write(request, replace(request.status, reason=reason, message=message))
                return plans.SOON
            case Fail(reason, message):
                return self._end(request, request.status, Fail(reason, message))
            case Ask():
                return self._ask(request, step)

    def _ask(self, request: CheckpointRequest, ask: Ask) -> float | None:
        """Follow the agent to its end, one request for a workload at a time."""
        with self._lock:
            if request.workload in self._sealing:
                return plans.SOON
            self._sealing.add(request.workload)
        try:
            return self._followed(request, ask)
        finally:
            with self._lock:
                self._sealing.discard(request.workload)

    def _followed(self, request: CheckpointRequest, ask: Ask) -> float | None:
        status = self._begun(request, ask)
        self._write(request, status)
        try:
            outcome = self._listen(request, status, self._asked(request, ask))
        except AgentAway as away:
            said = f"the agent of {ask.node} does not answer, and is asked again: {away}"
            self._write(request, replace(status, reason=plans.AWAY, message=said))
            raise
        except AgentRefused as refused:
            return self._end(request, status, Fail(plans.REFUSED, str(refused)))
        return None if outcome is None else self._judge(request, status, outcome)

    def _begun(self, request: CheckpointRequest, ask: Ask) -> CheckpointStatus:
        """Running; asked again, it goes on saying why until the agent says something else."""
        before = request.status
        if not before.started:
            message = f"the agent of {ask.node} is asked"
            before = replace(before, reason=plans.ASKED, message=message, started=self._clock.now())
        return replace(
            before,
            state=RequestState.RUNNING,
            node=ask.node,
            pod_uid=ask.pod_uid,
            checkpoint=ask.checkpoint,
        )

    def _listen(
        self, request: CheckpointRequest, status: CheckpointStatus, asked: Asked
    ) -> Outcome | None:
        """The outcome; None where this is no business of ours any more."""
        told = self._clock.monotonic()
        for step in self._sealer.seal(asked):
            if not self._ours(request):
                self._log.info("no longer followed", request="/".join(request.key))
                return None
            if step.outcome is not None:
                return step.outcome
            if self._clock.monotonic() - told >= TOLD_EVERY:
                told = self._clock.monotonic()
                self._tell(request, _with_progress(status, step))
        raise AgentAway("the agent ended its answer without an outcome")

    def _judge(
        self, request: CheckpointRequest, status: CheckpointStatus, outcome: Outcome
    ) -> float | None:
        if outcome.ok:
            status = replace(status, checkpoint=outcome.checkpoint or status.checkpoint)
            return self._end(request, status, f"sealed in {outcome.seconds:.1f} s")
        said = outcome.message or outcome.reason
        if outcome.reason == Reason.NAME_TAKEN.name and self._sealed_before(request):
            return self._end(request, status, "sealed; the agent's answer was lost")
        if outcome.reason in PASSING:
            self._write(request, replace(status, reason=plans.BUSY, message=said))
            return plans.SOON
        return self._end(request, status, Fail(plans.NOT_SEALED, said))

    def _sealed_before(self, request: CheckpointRequest) -> bool:
        """Whether what has the name came of this request: an agent that died forgot whose it is."""
        made = self._checkpoints.get((request.key[0], request.status.checkpoint))
        asked = int(request.status.started)  # creationTimestamp has whole seconds
        return bool(asked) and made is not None and made >= asked

    def _end(
        self, request: CheckpointRequest, status: CheckpointStatus, how: Fail | str
    ) -> float | None:
        """Write how it ended; a failed one names no checkpoint."""
        now = self._clock.now()
        if isinstance(how, Fail):
            status = replace(status, checkpoint="", progress=None)
            final = requests.ended(status, RequestState.FAILED, how.reason, how.message, now)
        else:
            final = requests.ended(status, RequestState.SUCCEEDED, plans.SEALED, how, now)
        self._write(request, final)
        self._ended[request.key] = request.uid
        self._log.info(
            "ended", request="/".join(request.key), state=final.state, message=final.message
        )
        return request.times.forget_after

    def _around(self, request: CheckpointRequest) -> Around:
        others = [
            found
            for found in self._requests.items().values()
            if found.workload == request.workload and not found.status.is_finished
        ]
        first = min(others, key=plans.order, default=request)
        taken = {name for space, name in self._checkpoints.items() if space == request.key[0]}
        return Around(checkpoints=taken, ahead="" if first.uid == request.uid else first.key[1])

    def _asked(self, request: CheckpointRequest, ask: Ask) -> Asked:
        return Asked(
            node=ask.node,
            workload=request.workload,
            pod_uid=ask.pod_uid,
            checkpoint=ask.checkpoint,
            parked=request.leave is Leave.PARKED,
            idempotency_key=request.uid,
            within=max(1.0, request.times.deadline - self._clock.now()),
            gold=request.gold,
        )

    def _ours(self, request: CheckpointRequest) -> bool:
        present = self._requests.get(request.key)
        return self.duty.started and present is not None and present.uid == request.uid

    def _tell(self, request: CheckpointRequest, status: CheckpointStatus) -> None:
        """Progress is worth a try, no more."""
        try:
            self._write(request, status)
        except ApiError as problem:
            self._log.info("progress not written", detail=str(problem))

    def _write(self, request: CheckpointRequest, status: CheckpointStatus) -> None:
        """Write what changed, of this life of the request only. Raises ApiError."""
        if status == request.status:
            return
        written = checkpointrequests.write_status(status)
        self._answers.write(request.key, request.uid, written)

    def _changed(self, change: Change[Any]) -> None:
        if change.new is None:
            self._ended.pop(change.key, None)
        self.duty.touch(change.key)


def _with_progress(status: CheckpointStatus, step: agents.Progress) -> CheckpointStatus:
    progress = Progress(
        phase=step.phase, done=step.done, total=step.total, seconds_left=step.seconds_left
    )
    message = step.message or f"the agent of {status.node} seals it"
    return replace(status, reason=plans.ASKED, message=message, progress=progress)


def _target(obj: Mapping[str, Any]) -> Target:
    spec, status = gpuworkloads.read_spec(obj), gpuworkloads.read_status(obj)
    finished = fields.condition(obj, gpuworkloads.FINISHED) == "True"
    if status is None:
        return Target(pod_uid=spec.pod_uid, finished=finished)
    node = NodeName(status.node) if status.node else None
    return Target(pod_uid=spec.pod_uid, node=node, state=status.state, finished=finished)


def _made(obj: Mapping[str, Any]) -> float:
    """When a checkpoint was published: seconds since the epoch."""
    return timestamps.parse_rfc3339(obj["metadata"]["creationTimestamp"])
