"""
Lives of containers that are not made yet: no process, only a seat and a slot.

Called by: `attempts`, `wakings`. Rule: a pod has one life at a time; one of a container that was
never made gives way to the next.
"""

import threading
from dataclasses import dataclass

from kybernate.model.gpu import Seat
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import Workload
from nodeagent.containers.learning import Containers, Node
from nodeagent.containers.podresources import KubeletAway
from nodeagent.lives.life import Life, Lives
from nodeagent.lives.newcomers import UNKNOWN, record_of
from nodeagent.stories.stage import Stage
from nodeagent.turns.coordinator import Coordinator

# In all, and between looks: who asks waits about as long.
_SOON_S, _LOOK_S = 1.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Unborn:
    """Thread safe for different pods."""

    node: Node
    stage: Stage
    lives: Lives
    coordinator: Coordinator
    containers: Containers

    def begin(self, pod: Workload, container_id: str, stopping: threading.Event) -> Life | None:
        """A life for it, once the kubelet names its seat and the container before is cleared away;
        None while that is not so."""
        for _ in range(round(_SOON_S / _LOOK_S)):
            seat = self._seat(pod.key)
            there = self.lives.get(pod.key)
            if there is not None and there.id not in (container_id, UNKNOWN):
                if not there.record.pid:
                    self.containers.ended(there)  # of a container that was never made
            elif there is not None and there.id == container_id:
                return there  # an agent before us had begun
            elif seat is not None and seat.group in self.node.groups and there is None:
                group = self.node.groups[seat.group]
                record = record_of(self.node.place, pod, seat, group, container_id)
                return Life(record=record, group=group, uuids=self.node.uuids)
            stopping.wait(_LOOK_S)
        return None

    def _seat(self, key: WorkloadKey) -> Seat | None:
        try:
            return self.node.seats.seats().get(key)
        except KubeletAway:
            return None

    def show(self, life: Life) -> None:
        """To everybody who asks from now on; again for the next candidate is fine."""
        if self.lives.get(life.key) is None:
            self.lives.add(life)
            self.stage.teller.seated(life)
            self.coordinator.waking(life.tenancy())

    def give_up(self, key: WorkloadKey, uid: PodUid) -> None:
        """Nothing of it is left; a cold start begins anew."""
        life = self.lives.get(key)
        if life is None or life.record.uid != uid or life.record.pid:
            return
        with life.held():
            self.stage.tools.pool.free(life.record.uid)
            self.stage.tools.cellar.drop(life.record.uid)
            self.stage.tools.depot.drop(life.record.uid)
            self.stage.tools.journal.forget(life.record.uid)
        self.coordinator.gone(life)
        self.lives.drop(life)
