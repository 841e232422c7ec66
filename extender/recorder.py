"""
Tells what was decided, once it is known what came of it: events, and `GpuWorkload.status`.

Called by: `service.py` with every placement, right before it answers; `watching.py` with every
change of a seat pod. Rules: nothing here delays an answer, so a burst of pods is told about at a
pace; a pod is never patched (each patch re-queues every pod that was refused); the same refusal of
the same pod is told once.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

from extender.placing import Placement
from extender.projections import Ledger, SeatPod
from kybernate.api import gpuworkloads, timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.decisions import pod_ref
from kybernate.clients.errors import Conflict, NotFound
from kybernate.clients.events import EventRecorder
from kybernate.clients.kube import Kube
from kybernate.clients.outbox import NotYet, Outbox, Patience
from kybernate.clients.resources import GPUWORKLOADS
from kybernate.decisions import wording
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.verdict import Decision, EventReason
from kybernate.model.workload import Workload

ACTION = "Scheduling"
_REMEMBERED = 4096  # pods between their answer and its outcome
# Of those that were refused, each with the names of all nodes: 400 KB at 5,000. The outcome of a
# refusal follows within a second, or not at all: the scheduler writes the same condition only once.
_REFUSALS = 256
# The controller makes a GpuWorkload within a second of its pod; after this it will not come.
_PATIENCE = Patience(size=4096, seconds=60.0)
# 50 a second, the rate clients of the API server have by default: telling a thousand pods takes
# 20 s, and placing them meanwhile is not held up by it.
_PACE_S = 0.02
# While the scheduler asks, its answers come first: telling a pod's placement takes as long as
# answering for it. Nobody waits longer than this for a word, however long a burst is.
_QUIET_S = 0.2
_AT_MOST_S = 10.0


@dataclass(slots=True, kw_only=True)
class Told:
    """A decision to be written; a placement has seconds, a refusal has none."""

    workload: Workload
    decision: Decision
    since: float = 0.0  # monotonic, when it was decided
    announced: bool = False  # its event is on the way


class Recorder:
    """Safe for several threads."""

    def __init__(self, kube: Kube, events: EventRecorder, clock: Clock) -> None:
        self._kube = kube
        self._events = events
        self._clock = clock
        self._lock = threading.Lock()
        self._decided: OrderedDict[PodUid, Placement] = OrderedDict()
        self._turned_down: OrderedDict[PodUid, Placement] = OrderedDict()
        self._refused: dict[PodUid, str] = {}
        self._ledgers: dict[PodUid, Ledger] = {}
        self._asked_at = float("-inf")  # monotonic, when the scheduler last asked
        self._stop = threading.Event()
        self._outbox: Outbox[Told] = Outbox("decisions", clock, self._write, patience=_PATIENCE)

    @property
    def dropped(self) -> int:
        """Events and entries that could not be written."""
        return self._outbox.dropped + self._events.dropped

    def decided(self, placement: Placement) -> None:
        """Remember an answer until its outcome is seen."""
        self._asked_at = self._clock.monotonic()
        uid, refused = placement.workload.uid, not placement.ranked
        kept, limit = (self._turned_down, _REFUSALS) if refused else (self._decided, _REMEMBERED)
        with self._lock:
            self._forgotten(uid)
            kept[uid] = placement
            if len(kept) > limit:
                kept.popitem(last=False)

    def pod_changed(self, old: SeatPod | None, new: SeatPod | None) -> None:
        """The outcome: bound to a node, or refused."""
        seen = new or old
        assert seen is not None
        uid = seen.workload.uid
        if new is None:
            self._taken(uid)
        elif new.workload.node is not None:
            placement = self._taken(uid)
            if placement is not None:
                self._outbox.put(self._placed(placement, new.workload.node))
        elif new.unschedulable:
            self._tell_refusal(uid)

    def ledger_changed(self, old: Ledger | None, new: Ledger | None) -> None:
        """A GpuWorkload came, changed or went."""
        with self._lock:
            if old is not None:
                self._ledgers.pop(old.pod, None)
            if new is not None:
                self._ledgers[new.pod] = new

    def flush(self, timeout: float) -> bool:
        """Wait until what has been told is written or dropped."""
        return self._outbox.flush(timeout) and self._events.flush(timeout)

    def stop(self) -> None:
        """Write what is queued for at most two seconds."""
        self._stop.set()
        self._outbox.stop()
        self._events.stop()

    def _tell_refusal(self, uid: PodUid) -> None:
        with self._lock:
            placement = self._turned_down.get(uid)
        if placement is None:
            return  # the scheduler's own refusal: it never asked us, or another plugin said no
        text = wording.refused(placement.refused, placement.verdict.revision)
        with self._lock:
            if self._refused.get(uid) == text:
                return
            self._refused[uid] = text
        decision = self._decision(placement, EventReason.PLACEMENT_REFUSED, text)
        self._outbox.put(
            Told(workload=placement.workload, decision=decision, since=self._clock.monotonic())
        )

    def _placed(self, placement: Placement, node: NodeName) -> Told:
        revision = placement.verdict.revision
        text = wording.placed(node, placement.ranked, placement.at, revision)
        found = next((one for one in placement.ranked if one.node == node), None)
        seconds = found.estimate(placement.at).seconds if found else None
        decision = self._decision(placement, EventReason.PLACED, text, seconds)
        return Told(workload=placement.workload, decision=decision, since=self._clock.monotonic())

    def _decision(
        self, placement: Placement, reason: EventReason, text: str, seconds: float | None = None
    ) -> Decision:
        return Decision(
            time=timestamps.rfc3339(placement.at),
            reason=reason,
            message=text,
            revision=placement.verdict.revision,
            seconds=None if seconds is None else round(seconds, 3),
        )

    def _taken(self, uid: PodUid) -> Placement | None:
        with self._lock:
            self._refused.pop(uid, None)
            return self._forgotten(uid)

    def _forgotten(self, uid: PodUid) -> Placement | None:
        """What was answered with nodes, if that is what was answered last."""
        self._turned_down.pop(uid, None)
        return self._decided.pop(uid, None)

    def _write(self, told: Told) -> None:
        if not told.announced:
            self._give_way(told)
            self._announce(told)
        self._enter(told)

    def _give_way(self, told: Told) -> None:
        """Until the scheduler is quiet, or this has waited long enough."""
        self._clock.wait(self._stop, _PACE_S)
        until = told.since + _AT_MOST_S
        while not self._stop.is_set():
            now = self._clock.monotonic()
            if now >= until or now - self._asked_at >= _QUIET_S:
                return
            self._clock.wait(self._stop, _QUIET_S)

    def _announce(self, told: Told) -> None:
        reason = told.decision.reason
        refusal = reason is EventReason.PLACEMENT_REFUSED
        about, text = pod_ref(told.workload), told.decision.message
        self._events.record(about, reason, ACTION, text, warning=refusal)
        told.announced = True

    def _enter(self, told: Told) -> None:
        """One patch, conditional on the version we know; the watch brings a newer one."""
        with self._lock:
            ledger = self._ledgers.get(told.workload.uid)
        if ledger is None:
            raise NotYet(f"{told.workload.key}: no GpuWorkload yet")
        kept = gpuworkloads.append(ledger.decisions, told.decision)
        status: dict[str, object] = {"decisions": gpuworkloads.write_decisions(kept)}
        if told.decision.seconds is not None:
            estimate = {"estimateSeconds": told.decision.seconds, "text": told.decision.message}
            status["placement"] = estimate
        patch = {"metadata": {"resourceVersion": ledger.version}, "status": status}
        key = ledger.key
        try:
            self._kube.patch(GPUWORKLOADS, key.name, patch, key.namespace, subresource="status")
        except (Conflict, NotFound) as problem:
            raise NotYet(f"{key}: {problem.message}") from problem
