"""
`python -m benchmarks.harness.watching PID...`: the agent's demand watch over these processes, as if
all were parked; prints the part of a core it takes while nobody asks, over ten seconds.
"""

import sys
import threading
import time

from kybernate.decisions.books import Books
from kybernate.model.callers import NOBODY
from kybernate.model.demand import Demand
from kybernate.model.gpu import Seat
from kybernate.model.ids import GpuUuid, PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import State
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import GIB, a_group
from nodeagent.demand.lines import Lines
from nodeagent.demand.sockets import Sockets
from nodeagent.demand.watch import DemandWatch
from nodeagent.disk.records import Mark, Record, Terms
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.lives.life import Life, Lives
from nodeagent.probing.netns import Namespaces

_SECONDS = 10.0


class Listens:
    """All are parked."""

    def __init__(self, lives: Lives) -> None:
        group = a_group(0)
        self.looked_at: set[WorkloadKey] = set()
        tenancies = {life.key: life.tenancy() for life in lives.all()}
        self.books = Books(
            memory={0: 80 * GIB}, groups={group.name: group}, tenancies=tenancies
        )  # fmt: skip

    def heard(self, key: WorkloadKey, life: str, demand: Demand) -> None:
        """Nobody is expected to ask."""
        self.looked_at.add(key)
        if demand.wanted:
            sys.exit(f"{key} ({life}) is wanted: {demand.why}")


def main() -> None:
    """Watch, print."""
    lives = Lives()
    for pid in map(int, sys.argv[1:]):
        lives.add(_life(pid))
    clock, lines = SystemClock(), Lines(Namespaces())
    sockets = Sockets(lines.look, lambda: NOBODY, lambda _: None, Cgroups(), clock)
    listens = Listens(lives)
    watch = DemandWatch(lives, listens, [sockets], lines, clock)
    watch.start()
    while len(listens.looked_at) < len(lives.all()):  # which processes are whose is found once
        clock.wait(threading.Event(), 0.1)
    before = time.process_time()
    clock.wait(threading.Event(), _SECONDS)
    sys.stdout.write(f"{(time.process_time() - before) / _SECONDS}\n")
    watch.stop()


def _life(pid: int) -> Life:
    group = a_group(0)
    record = Record(
        key=WorkloadKey("default", f"p{pid}"),
        uid=PodUid(f"u{pid}"),
        seat=Seat(group.name, 0),
        container="model",
        container_id=f"id{pid}",
        pid=pid,
        pid_started=processes.started(pid) or 0,
        exec_fifo="",
        boot="",
        terms=Terms(resource=ResourceName("kyb.ai/gpu-1x-seat"), vram=GIB),
        mark=Mark.PARKED,
    )
    life = Life(record=record, group=group, uuids={0: GpuUuid("GPU-0")})
    assert life.tenancy().state is State.PARKED
    return life


if __name__ == "__main__":
    main()
