"""
The watches that keep the view, and that show what became of a decision.

Called by: `process.py`. Rule: one thread a kind; each change is applied under the view's lock,
which is held for microseconds.
"""

from collections.abc import Mapping
from typing import Any

from extender import projections
from extender.projections import Ledger, SeatPod
from extender.recorder import Recorder
from extender.view import View
from kybernate.api.checkpoints import read_checkpoint
from kybernate.api.gpunodes import read_node
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector, unready
from kybernate.clients.resources import GPUCHECKPOINTS, GPUNODES, GPUWORKLOADS, NODES, PODS
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.node import NodeState

# Ended pods hold no seat; the server leaves them out, which spares us every finished Job.
_LIVING = "status.phase!=Succeeded,status.phase!=Failed"


class Watching:
    """Starts with `start`; `synced` is False until everything has been seen once."""

    def __init__(self, kube: Kube, view: View, recorder: Recorder) -> None:
        self._view = view
        self._recorder = recorder
        nodes = Reflector(kube, NODES, project=projections.node_labels, on_change=self._node)
        states = Reflector(kube, GPUNODES, project=read_node, on_change=self._state)
        pods = Reflector(
            kube, PODS, project=projections.seat_pod, on_change=self._pod, field_selector=_LIVING
        )
        checkpoints = Reflector(
            kube, GPUCHECKPOINTS, project=read_checkpoint, on_change=self._checkpoint
        )
        self._needed: tuple[Reflector[Any], ...] = (nodes, states, pods, checkpoints)
        # Not needed to answer: only to tell afterwards.
        self._useful = Reflector(
            kube, GPUWORKLOADS, project=projections.ledger, on_change=self._ledger
        )

    def start(self) -> None:
        """Begin all of them; returns at once."""
        for reflector in (*self._needed, self._useful):
            reflector.start()

    def stop(self) -> None:
        """End all of them."""
        for reflector in (*self._needed, self._useful):
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether the view holds everything it needs."""
        return all(reflector.synced for reflector in self._needed)

    @property
    def unready(self) -> str | None:
        """Why the view is not to be decided by; None: it is whole, and fresh."""
        return unready(self._needed)

    @property
    def broken_seconds(self) -> float:
        """How long the watch that is broken longest has been so."""
        return max(reflector.broken_seconds for reflector in self._needed)

    def _node(self, change: Change[Mapping[str, str]]) -> None:
        with self._view.lock:
            self._view.put_labels(NodeName(change.key[1]), change.new)

    def _state(self, change: Change[NodeState]) -> None:
        with self._view.lock:
            self._view.put_state(NodeName(change.key[1]), change.new)

    def _pod(self, change: Change[SeatPod]) -> None:
        seen = change.new or change.old
        assert seen is not None
        workload = change.new.workload if change.new else None
        with self._view.lock:
            self._view.put_workload(seen.workload.uid, workload)
        self._recorder.pod_changed(change.old, change.new)

    def _checkpoint(self, change: Change[Checkpoint]) -> None:
        with self._view.lock:
            self._view.put_checkpoint("/".join(change.key), change.new)

    def _ledger(self, change: Change[Ledger]) -> None:
        self._recorder.ledger_changed(change.old, change.new)
