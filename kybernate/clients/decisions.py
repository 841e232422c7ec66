"""
Decisions, told twice: an event on the pod, and an entry in `GpuWorkload.status.decisions`.

Called by: whoever decides (extender, agent, controller), after the outcome is known.
Rule: `record` never blocks. Rule: the list keeps the last ten and is written by compare-and-swap,
because several processes write it. Rule: a GpuWorkload that is not there yet is waited for.
"""

import threading
from collections.abc import Sequence
from typing import Any

from kybernate.api import gpuworkloads
from kybernate.api.errors import Malformed
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Conflict, NotFound
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.outbox import NotYet, Outbox, Patience
from kybernate.clients.resources import GPUWORKLOADS
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Decision
from kybernate.model.workload import Workload

# The controller makes the object within a second of the pod; after this it will not come.
_PATIENCE_S = 30.0


_Life = tuple[WorkloadKey, PodUid]


class DecisionRecorder:
    """Tells decisions about workloads."""

    def __init__(self, kube: Kube, events: EventRecorder, clock: Clock) -> None:
        self._kube = kube
        self._events = events
        self._outbox: Outbox[_Life] = Outbox(
            "decisions",
            clock,
            self._append,
            lost=self._forget,
            patience=Patience(seconds=_PATIENCE_S),
        )
        self._pending: dict[_Life, tuple[Decision, ...]] = {}
        self._lock = threading.Lock()

    @property
    def dropped(self) -> int:
        """Entries that could not be written."""
        return self._outbox.dropped

    def record(
        self,
        workload: Workload | _Life,
        decision: Decision,
        action: str,
        *,
        related: Workload | _Life | ObjectRef | None = None,
        warning: bool = False,
    ) -> None:
        """Write the event and append to the status, in the background."""
        other = related if related is None or isinstance(related, ObjectRef) else pod_ref(related)
        self._events.record(
            pod_ref(workload),
            decision.reason,
            action,
            decision.message,
            warning=warning,
            related=other,
        )
        self._queue(_identity(workload), decision)

    def flush(self, timeout: float) -> bool:
        """Wait until everything recorded so far is written or dropped, events included."""
        return self._outbox.flush(timeout) and self._events.flush(timeout)

    def stop(self) -> None:
        """Write what is queued for at most two seconds, then end. The events go on."""
        self._outbox.stop()

    def _queue(self, life: _Life, decision: Decision) -> None:
        # One item per workload: a second decision joins those that wait, in order.
        with self._lock:
            waiting = self._pending.get(life)
            self._pending[life] = gpuworkloads.append(waiting or (), decision)
        if waiting is None:
            self._outbox.put(life)

    def _forget(self, life: _Life) -> None:
        with self._lock:
            self._pending.pop(life, None)

    def _append(self, life: _Life) -> None:
        key, uid = life
        with self._lock:
            fresh = self._pending.get(life, ())
        try:
            self._write(key, uid, fresh)
        except (NotFound, Conflict) as problem:
            raise NotYet(f"{key}: {problem.message}") from problem
        with self._lock:
            rest = tuple(one for one in self._pending.pop(life, ()) if one not in fresh)
            if rest:
                self._pending[life] = rest
        if rest:
            self._outbox.put(life)

    def _write(self, key: WorkloadKey, uid: PodUid, fresh: Sequence[Decision]) -> None:
        obj = self._kube.get(GPUWORKLOADS, key.name, key.namespace)
        if obj.get("spec", {}).get("podUID", uid) != uid:
            return  # a later life of the name: these decisions are history
        kept = _read(obj)
        for decision in fresh:
            kept = gpuworkloads.append(kept, decision)
        patch = {
            "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]},
            "status": {"decisions": gpuworkloads.write_decisions(kept)},
        }
        self._kube.patch(GPUWORKLOADS, key.name, patch, key.namespace, subresource="status")


def pod_ref(workload: Workload | _Life) -> ObjectRef:
    """The pod of a workload, for events."""
    key, uid = _identity(workload)
    return ObjectRef(kind="Pod", namespace=key.namespace, name=key.name, uid=uid)


def _identity(workload: Workload | _Life) -> _Life:
    return (workload.key, workload.uid) if isinstance(workload, Workload) else workload


def _read(obj: dict[str, Any]) -> tuple[Decision, ...]:
    try:
        return gpuworkloads.read_decisions(obj)
    except Malformed:
        return ()  # written by a newer version: our entry is worth more than theirs
