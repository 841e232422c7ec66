"""
Writing what stands: GpuNode, GpuWorkload, and the seat on the pod. One thread.

Rule: only what changed is written, and a workload or the node at most every `PAUSE`; while the API
server is away nothing is queued: what stands afterwards is written.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from kybernate.api import gpunodes, gpuworkloads, names
from kybernate.clients.backoff import Backoff, Pace
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, Forbidden, NotFound, Refused, Retry
from kybernate.clients.kube import Kube
from kybernate.clients.resources import GPUNODES, GPUWORKLOADS, PODS
from kybernate.model.gpu import Group
from kybernate.model.ids import GroupName, NodeName, PodUid, WorkloadKey
from kybernate.model.workload import State
from kybernate.runtime.logs import get_logger
from nodeagent.lives.life import Life, Lives
from nodeagent.reporting import standing
from nodeagent.reporting.standing import Measured
from nodeagent.turns.coordinator import Coordinator

# Between two rounds: a switch of a second is seen beginning and ending.
PAUSE = 0.5
# Written again although nothing changed: the controller may have called us away meanwhile.
AT_LEAST_EVERY = 60.0
# A seat that may not be written is tried again for so long; roles are read within a second or two.
FORBIDDEN = 10.0
_LOOK_S = 5.0
_ENDED = "its container has ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is written, and where it is read from."""

    node: NodeName
    coordinator: Coordinator
    lives: Lives
    mechanism: str
    endpoint: str
    driver: Callable[[], str]
    measured: Callable[[], Measured]
    uid_of: Callable[[WorkloadKey], PodUid | None]  # of the pod the GpuWorkload is about
    conditions: Callable[[], Sequence[gpunodes.Condition]] = tuple  # the node's, beside Ready
    wall: Callable[[float], float] = float  # of a moment of the books
    incomplete: Mapping[GroupName, Group] = field(default_factory=dict)  # a card is missing


@dataclass(frozen=True, slots=True)
class _Life:
    """A container's life; where its record was lost the container is unknown, the pod is not."""

    uid: PodUid
    container_id: str

    @classmethod
    def of(cls, life: Life) -> "_Life":
        return cls(life.record.uid, life.id)


class Writer:
    """`start` once; `nudge` when something changed."""

    def __init__(self, kube: Kube, sources: Sources, clock: Clock) -> None:
        self._kube = kube
        self._s = sources
        self._clock = clock
        self._since = clock.now()
        self._written: dict[_Life, tuple[WorkloadKey, object]] = {}
        self._node_written: object = None
        self._node_at = float("-inf")
        self._seated: set[_Life] = set()
        self._forbidden_since: dict[_Life, float] = {}
        self._backoff = Backoff(Pace(first=0.5, longest=10.0))
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._log = get_logger()

    def start(self) -> None:
        """Begin; returns at once."""
        self._wake.set()
        self._thread.start()

    def stop(self) -> None:
        """One last round, then end."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def nudge(self) -> None:
        """Something changed."""
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._clock.wait(self._wake, _LOOK_S)
            self._wake.clear()
            pause = PAUSE
            try:
                self.write_all()
                self._backoff.reset()
            except Retry as problem:
                pause = self._backoff.next(problem.after)
                self._wake.set()
            except Exception:  # a fault in telling must not end telling
                self._log.exception("statuses were not written")
            if self._stopping.is_set():
                return
            self._clock.wait(self._stopping, pause)

    def write_all(self) -> None:
        """One round. Raises Retry where the API server is away; a refusal is only logged."""
        lives = self._s.lives.all()
        self._forget_others({_Life.of(life) for life in lives})
        for life in lives:
            self._refusable(life.key, lambda one=life: self._write_workload(one))  # type: ignore[misc]
            self._refusable(life.key, lambda one=life: self._write_seat(one))  # type: ignore[misc]
        self._refusable(self._s.node, self._write_node)

    def _forget_others(self, here: Collection["_Life"]) -> None:
        pods = {one.uid for one in here}
        for one, (key, _) in self._written.items():
            if one not in here and one.uid not in pods:
                self._refusable(key, lambda key=key, uid=one.uid: self._write_end(key, uid))  # type: ignore[misc]
        self._written = {one: said for one, said in self._written.items() if one in here}
        self._seated = {one for one in self._seated if one in here}
        self._forbidden_since = {
            one: at for one, at in self._forbidden_since.items() if one in here
        }

    def _refusable(self, what: object, write: Callable[[], None]) -> None:
        try:
            write()
        except Refused as problem:
            self._log.warning("not written", what=str(what), why=str(problem))

    def _write_workload(self, life: Life) -> None:
        tenancy = self._s.coordinator.books.tenancies.get(life.key)
        if tenancy is None or self._s.uid_of(life.key) != life.record.uid:
            return  # the controller makes the object within a second of the pod
        why = self._s.coordinator.why(life.key)
        status = standing.workload_status(self._s.node, tenancy, life, why, self._s.mechanism)
        print_ = standing.fingerprint(status)
        if self._written.get(_Life.of(life)) == (life.key, print_):
            return
        told = replace(status, since=self._s.wall(status.since), worked_at=self._worked_at(status))
        patch = {"status": gpuworkloads.write_status(told)}
        try:
            self._kube.patch(
                GPUWORKLOADS, life.key.name, patch, life.key.namespace, subresource="status"
            )
        except NotFound:
            return
        self._written[_Life.of(life)] = (life.key, print_)

    def _worked_at(self, status: gpuworkloads.Status) -> float:
        """By the wall clock, never too early; 0 where nobody can tell."""
        idle = status.demand.idle_for if status.demand is not None else None
        return 0.0 if idle is None else self._clock.now() - idle

    def patch_status(self, key: WorkloadKey, uid: PodUid, patch: dict[str, Any]) -> None:
        """Of the GpuWorkload about this pod. Raises Retry, also while it is not there, Refused."""
        if self._s.uid_of(key) != uid:
            raise Retry(f"there is no GpuWorkload of {key} yet")
        self._kube.patch(GPUWORKLOADS, key.name, patch, key.namespace, subresource="status")

    def _write_end(self, key: WorkloadKey, uid: PodUid) -> None:
        """Its container ended and the pod stays, as a completed Job's does."""
        if self._s.uid_of(key) != uid:
            return  # the object goes with its pod
        ended = gpuworkloads.Status(
            state=State.ABSENT, since=self._clock.now(), node=self._s.node, why=_ENDED
        )
        patch = {"status": gpuworkloads.write_status(ended)}
        with suppress(NotFound):
            self._kube.patch(GPUWORKLOADS, key.name, patch, key.namespace, subresource="status")

    def _write_seat(self, life: Life) -> None:
        this = _Life.of(life)
        if this in self._seated:
            return
        patch = {
            "metadata": {
                "uid": life.record.uid,  # of this life only
                "annotations": {names.SEAT: life.record.seat.id},
            }
        }
        self._seated.add(this)  # a refusal is final
        try:
            self._kube.patch(PODS, life.key.name, patch, life.key.namespace)
        except Retry:
            self._seated.discard(this)
            raise
        except Forbidden:
            if self._may_be_allowed(this):
                self._seated.discard(this)
            raise

    def _may_be_allowed(self, life: _Life) -> bool:
        """An API server that has just started forbids everything until it has read its roles."""
        now = self._clock.monotonic()
        return now - self._forbidden_since.setdefault(life, now) <= FORBIDDEN

    def _write_node(self) -> None:
        books, picture = self._s.coordinator.books, self._s.coordinator.picture
        state = standing.node_state(
            self._s.node, books, picture, self._s.measured(), self._s.incomplete
        )
        used = dict(picture.used) if picture else {}
        conditions = tuple(self._s.conditions())
        print_ = (standing.node_fingerprint(state, used), conditions)
        moment = self._clock.monotonic()  # a wall clock that is put back must not keep us silent
        if print_ == self._node_written and moment - self._node_at < AT_LEAST_EVERY:
            return
        observed = gpunodes.Observed(
            at=self._clock.now(),
            ready_since=self._since,
            gpus=picture.gpus if picture else (),
            used=used,
            driver=self._s.driver(),
            mechanisms=[self._s.mechanism],
            policy_revision=self._s.coordinator.revision,
            endpoint=self._s.endpoint,
            conditions=conditions,
        )
        told = standing.by_the_wall(state, self._s.wall)
        self._patch_node({"status": gpunodes.write_status(told, observed)})
        self._node_written, self._node_at = print_, moment

    def _patch_node(self, patch: dict[str, object]) -> None:
        try:
            self._kube.patch(GPUNODES, self._s.node, patch, subresource="status")
        except NotFound:
            with suppress(AlreadyExists):
                self._kube.create(GPUNODES, gpunodes.new_object(self._s.node))
            self._kube.patch(GPUNODES, self._s.node, patch, subresource="status")
