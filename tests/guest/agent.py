"""
An agent's stories in a process that can be killed: at the N-th time it changes a file, or before or
after the driver has done something with a process.

Started by the tests; told, a line of JSON at a time, what to do, and forks for each: recover, and
then park and resume (`turn`), or resume what is parked (`settle`). Answers with how it ended: the
workload's mark and how many changes there were, or nothing where it was killed.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from kybernate.model.gpu import Seat
from kybernate.model.ids import GpuUuid, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.runtime.clock import SystemClock
from kybernate.testing.builders import a_group
from nodeagent.cellar import Cellar
from nodeagent.depot import Depot
from nodeagent.disk.journal import FileJournal
from nodeagent.disk.pool import Pool
from nodeagent.disk.records import Mark, Record, Terms
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer
from nodeagent.lives.phases import Stopwatch
from nodeagent.mechanisms.bulk import BulkOfChunks
from nodeagent.mechanisms.chunks import Chunks
from nodeagent.mechanisms.deep import Deep
from nodeagent.mechanisms.driverstates import DriverStates
from nodeagent.mechanisms.guest import GuestMechanism
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.moving import Notes
from nodeagent.mechanisms.slabs import Slabs
from nodeagent.stories import park, recovery, resume
from nodeagent.stories.story import Story, Tools
from testbed import fakecuda

FOLDER = Path(sys.argv[1])
MIB = 2**20
GROUP, UUIDS = a_group(0), {0: GpuUuid(fakecuda.UUID)}
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link"}


class Cards:
    def free(self, uuid):
        return 1 << 30

    def held_by(self, body):
        return 0


def count_changes(last):
    """A counter of them; `last` is the one instead of which the process is killed."""
    made = [0]

    def step():
        if made[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)
        made[0] += 1

    def hook(event, arguments):
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        if (writing or event in CHANGES) and str(arguments[0]).startswith(str(FOLDER)):
            step()

    sys.addaudithook(hook)
    return made, step


class Mortal(DriverStates):
    """Whoever asks may be killed before and after each of the driver's steps."""

    def __init__(self, worker, step):
        super().__init__(worker)
        self._may_end = step

    def _step(self, uuid, pid, step, limit, pairs=()):
        if step == "state":
            return super()._step(uuid, pid, step, limit, pairs)
        self._may_end()
        state = super()._step(uuid, pid, step, limit, pairs)
        self._may_end()
        return state


def tools(step):
    bulk = BulkOfChunks(FOLDER / "pool", Chunks(Slabs(FOLDER / "pool/.chunks", 4 * MIB), 64 * MIB))
    clock, cgroups = SystemClock(), Cgroups()
    freezer = Freezer(clock, cgroups)
    pool = Pool(FOLDER / "pool", 64 * MIB, bulk)
    guest = GuestMechanism(Guests(FOLDER / "g.sock"), bulk, FOLDER / "workers", freezer, cgroups)
    return Tools(
        journal=FileJournal(FOLDER / "journal"),
        pool=pool,
        cellar=Cellar(FOLDER / "cellar", 0, b"", clock, free=lambda _: 0),  # nothing is demoted
        depot=Depot(None, NodeName("node"), 0, b"", clock),
        mechanism=Deep(guest, Mortal(guest.worker, step), lambda _: 0, Notes(pool)),
        cards=Cards(), clock=clock, freezer=freezer,
    )  # fmt: skip


def first(pid):
    return Record(
        key=WorkloadKey("team", "model"), uid=PodUid("uid-a"), seat=Seat(GROUP.name, 0),
        container="model", container_id="c1", pid=pid, pid_started=processes.started(pid),
        exec_fifo=str(FOLDER / "fifo"), boot=processes.boot_id(), mark=Mark.ACTIVE, since=0.0,
        terms=Terms(resource=ResourceName("kyb.ai/gpu-1x-seat"), vram=8 * MIB),
    )  # fmt: skip


def play(pid, what, last):
    made, step = count_changes(last)
    ours = tools(step)
    if not any((FOLDER / "journal").glob("*.json")):
        ours.journal.write(first(pid))
    found = recovery.recover(ours.journal, ours, {GROUP.name: GROUP}, UUIDS, processes.boot_id())
    (life,) = found.lives
    story = Story(
        tools=ours, body=life.body, record=life.record, watch=Stopwatch(ours.clock),
        tell=lambda *_: None,
    )  # fmt: skip
    if story.record.mark is Mark.ACTIVE and what == "turn":
        park.park(story)
    if story.record.mark is Mark.PARKED:
        resume.resume(story)
    return {"mark": story.record.mark.value, "changes": made[0], "used": ours.pool.bulk.chunks.used}


def forked(pid, what, last):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, json.dumps(play(pid, what, last)).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read()
    return {"told": json.loads(told) if told else None, "ended": os.waitpid(child, 0)[1]}


with os.fdopen(os.dup(1), "w") as answers:
    os.dup2(2, 1)  # logs are not answers
    for line in sys.stdin:
        print(json.dumps(forked(*json.loads(line))), file=answers, flush=True)
