"""
Learning of workloads: a container is made and held, it ends, it is asked whether it lives.

Called by: the runtime's API, recovery, lifelines. `created` returns at once; who the workload is
(its pod, its seat) may be known only later, so a thread asks until it is.
Rule: a pod's next container is let in only when everything of the one before is gone.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kybernate.clients.clock import Clock
from kybernate.model.gpu import Group, Seat
from kybernate.model.ids import GpuUuid, GroupName, PodUid, WorkloadKey
from kybernate.model.workload import Desired, Workload
from kybernate.runtime.logs import get_logger
from nodeagent.cellar import Cellar
from nodeagent.containers.podresources import KubeletAway, Seats
from nodeagent.depot import Depot
from nodeagent.disk.announcements import Announcements, Created
from nodeagent.disk.journal import Journal
from nodeagent.disk.pool import Pool
from nodeagent.linux import processes
from nodeagent.linux.lifelines import Lifelines
from nodeagent.lives.life import Life, Lives
from nodeagent.lives.newcomers import UNKNOWN, Place, record_of, record_of_nobody
from nodeagent.lives.telling import Teller
from nodeagent.turns.coordinator import Coordinator

# While the pod's object or its seat is not known yet. The watch brings a pod within milliseconds.
_AGAIN_S = 0.25
# Otherwise only a change wakes us; this is for a pod that went while we did not hear of it.
_SELDOM_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What containers need of the node's parts."""

    groups: Mapping[GroupName, Group]
    uuids: Mapping[int, GpuUuid]
    place: Place
    seats: Seats
    journal: Journal
    announcements: Announcements
    pool: Pool
    cellar: Cellar
    depot: Depot
    clock: Clock
    pod_of: Callable[[WorkloadKey], Workload | None]
    pods: Callable[[], tuple[Workload, ...]]
    synced: Callable[[], bool]  # whether `pods` has been all of them
    desired_of: Callable[[WorkloadKey, PodUid], Desired]
    forget: Callable[[Life], None]  # whatever else is kept of one whose processes are gone


class Containers:
    """Thread safe. `start` once."""

    def __init__(
        self,
        node: Node,
        lives: Lives,
        lifelines: Lifelines,
        coordinator: Coordinator,
        teller: Teller,
    ) -> None:
        self._node = node
        self._lives, self._lifelines = lives, lifelines
        self._coordinator, self._teller = coordinator, teller
        self._pending: dict[str, Created] = {}
        self._unreadable: dict[PodUid, str] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="containers", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End. Held containers stay held."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    # what the runtime says

    def created(self, created: Created) -> None:
        """A container exists and is held. Told twice is fine. Raises OSError, ValueError."""
        known = self._lives.get(created.key)
        if known is not None and known.id == created.container_id and not known.gone:
            return
        self._node.announcements.keep(created)
        with self._lock:
            self._pending[created.container_id] = created
        self._wake.set()

    def announced(self, key: WorkloadKey, uid: PodUid) -> bool:
        """Whether a container of this pod is held that is not let in yet."""
        with self._lock:
            pending = tuple(self._pending.values())
        return any(one.key == key and one.uid in (None, uid) for one in pending)

    def remember(self) -> None:
        """Those announced to an agent before us."""
        with self._lock:
            for created in self._node.announcements.all():
                self._pending[created.container_id] = created
        self._wake.set()

    def exited(self, key: WorkloadKey, container_id: str) -> None:
        """A container ended. Told twice, or of one never seen, is fine."""
        self._settled(container_id)
        life = self._lives.get(key)
        if life is not None and life.id in (container_id, UNKNOWN):
            self.ended(life)

    def ended(self, life: Life) -> None:
        """A life is over: its turn ends now, what was kept for it goes as soon as no story runs."""
        with self._lock:
            if life.gone:
                return
            life.gone = True
        self._coordinator.gone(life)
        threading.Thread(target=self._discard, args=(life,), name="discard", daemon=True).start()

    def nudge(self) -> None:
        """A pod was seen: look whether somebody waits for it."""
        self._wake.set()

    def adopt(self, life: Life) -> None:
        """A life known from the journal: watch its process, where it has one already."""
        self._lives.add(life)
        if life.record.pid:
            self.watch(life)

    def unreadable(self, uid: PodUid, why: str) -> None:
        """The journal's record of this pod cannot be read: what it holds is nobody's to touch."""
        self._unreadable[uid] = why
        self._wake.set()

    # letting in

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = _AGAIN_S if self._pending or self._unreadable else _SELDOM_S
            self._node.clock.wait(self._wake, pause)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._let_in_all()
            except Exception:  # a fault over one container must not keep all others out
                get_logger().exception("containers were not let in")

    def _let_in_all(self) -> None:
        self._end_without_pod()
        self._forget_without_pod()
        with self._lock:
            pending = tuple(self._pending.values())
        if not pending and not self._unreadable:
            return
        try:
            seats = self._node.seats.seats()
        except KubeletAway:
            return
        self._quarantine(seats)
        for created in pending:
            try:
                done = self._let_in(created, seats.get(created.key))
            except Exception as error:  # the journal's disk: it stays held, and is tried again
                get_logger(workload=str(created.key)).error("not let in", why=str(error))
                done = False
            if done:
                self._settled(created.container_id)

    def _settled(self, container_id: str) -> None:
        with self._lock:
            self._pending.pop(container_id, None)
        self._node.announcements.forget(container_id)

    def _let_in(self, created: Created, seat: Seat | None) -> bool:
        """Whether nothing more is to be done for it."""
        if not processes.is_same(created.pid, created.pid_started):
            return True  # it ended before anybody knew who it was
        there = self._lives.get(created.key)
        if there is not None and there.id == created.container_id:
            return True  # let in, and the agent died before it forgot the announcement
        workload = self._node.pod_of(created.key)
        known = workload is not None and created.uid in (None, workload.uid)
        if workload is None or not known or seat is None or seat.group not in self._node.groups:
            return False
        if there is not None:
            return False  # of the container before; it is being cleared away
        life = self._life(created, workload, seat)
        self._lives.add(life)
        self._teller.seated(life)
        self._coordinator.arrive(life.tenancy())
        desired = self._node.desired_of(life.key, workload.uid)
        self._coordinator.desire(life.key, workload.uid, desired)
        self.watch(life)
        return True

    def _quarantine(self, seats: Mapping[WorkloadKey, Seat]) -> None:
        """Pods whose records are unreadable, as soon as the API server names them."""
        for pod in self._node.pods():
            seat = seats.get(pod.key)
            group = self._node.groups.get(seat.group) if seat else None
            if pod.uid not in self._unreadable or seat is None or group is None:
                continue
            why = self._unreadable.pop(pod.uid)
            record = record_of_nobody(self._node.place, pod, seat, group)
            life = Life(record=record, group=group, uuids=self._node.uuids)
            self._lives.add(life)
            self._coordinator.restore(life.tenancy())
            self._teller.quarantined(life, f"its journal record is unreadable: {why}")

    def _end_without_pod(self) -> None:
        """Nothing but its pod tells of the end of a workload whose process is not known, or is not
        made yet."""
        for life in self._lives.all():
            if life.record.pid or not self._node.synced():
                continue
            pod = self._node.pod_of(life.key)
            if pod is None or pod.uid != life.record.uid:
                self.ended(life)

    def _forget_without_pod(self) -> None:
        """What an unreadable record kept goes with its pod. By the API server's word: nothing else
        tells whose it was."""
        if not self._unreadable or not self._node.synced():
            return
        here = {pod.uid for pod in self._node.pods()}
        for uid in [one for one in self._unreadable if one not in here]:
            get_logger(uid=uid).warning("of an unreadable record the pod is gone; so is its copy")
            self._node.pool.free(uid)
            self._node.cellar.drop(uid)
            self._node.depot.drop(uid)
            self._node.journal.forget(uid)
            del self._unreadable[uid]

    def _life(self, created: Created, workload: Workload, seat: Seat) -> Life:
        node, group = self._node, self._node.groups[seat.group]
        record = replace(
            record_of(node.place, workload, seat, group, created.container_id),
            container=created.container,
            pid=created.pid,
            pid_started=created.pid_started,
            exec_fifo=str(created.exec_fifo),
        )
        return Life(record=node.journal.write(record), group=group, uuids=node.uuids)

    def watch(self, life: Life) -> None:
        """Notice the end of its process."""
        record = life.record
        self._lifelines.watch(record.pid, record.pid_started, lambda: self.ended(life))

    def _discard(self, life: Life) -> None:
        with life.held():
            self._node.forget(life)
            self._node.pool.free(life.record.uid)
            self._node.cellar.drop(life.record.uid)
            self._node.depot.drop(life.record.uid)
            self._node.journal.forget(life.record.uid)
        self._lives.drop(life)
        self._wake.set()  # its pod's next container may wait to be let in
