"""
Answering the runtime that is about to make a container: cold, or from a checkpoint its pod claims.

Called by: the runtime's socket (`creating`, `held` of a restored container, `ended`). An answer is
given at once; while a checkpoint is on its way the runtime is told so, and asks again.
Rule: a checkpoint is not deleted until the container that is made from it stands, or never will.
Rule: a container that is made again in the same pod wakes again from what the pod has claimed,
where its class is training or batch; a server begins cold.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kybernate.clients.errors import Refused
from kybernate.clients.runtimecalls import Call
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.tenancy import RETURNING
from kybernate.model.checkpoint import key_of
from kybernate.model.workload import Workload
from nodeagent.containers.learning import Containers, Node
from nodeagent.disk.records import Mark
from nodeagent.disk.woken import WokenNotes
from nodeagent.images import ProcessImages
from nodeagent.linux import processes
from nodeagent.lives.feed import Doing
from nodeagent.lives.life import Life, Lives
from nodeagent.lives.phases import PhaseTime
from nodeagent.stories import wake
from nodeagent.stories.stage import Endings, Stage
from nodeagent.turns.coordinator import Coordinator
from nodeagent.waking.attempt import COLD, Attempt
from nodeagent.waking.attempts import Attempts
from nodeagent.waking.heritage import Heritage
from nodeagent.waking.readings import Readings
from nodeagent.waking.unborn import Unborn

_UNKNOWN = {"error": "its pod is not known yet", "again": "yes"}
_SOON_S = 1.0  # the runtime waits twice as long for an answer
_LOOK_S = 0.1


class NotKnown(Refused):
    """A restored container that nobody here prepared."""


@dataclass(slots=True, kw_only=True)
class Wakings:
    """Thread safe."""

    node: Node
    stage: Stage
    lives: Lives
    coordinator: Coordinator
    containers: Containers
    images: ProcessImages
    attempts: Attempts
    heritage: Heritage
    unborn: Unborn
    readings: Readings
    notes: WokenNotes
    _stopping: threading.Event = field(default_factory=threading.Event)

    # before it is made

    def arriving(self, call: Call) -> Mapping[str, str]:
        """Of a pod's sandbox: whether what it wakes from is here, or that it is on its way."""
        pod = self._pod(call)
        if pod is None:
            return _UNKNOWN
        named = pod.wishes.restore_from or self.heritage.may(pod)
        if not named or (self.notes.of(pod.uid) and not wakes_again(pod)):
            return COLD
        return self.attempts.answer(pod, call, _SOON_S)

    def creating(self, call: Call) -> Mapping[str, str]:
        """The answer, or that it is on its way."""
        pod = self._pod(call)
        if pod is None:
            return _UNKNOWN
        if not self._is_to_wake(pod, call):
            return COLD
        return self.attempts.answer(pod, call, _SOON_S)

    def stop(self) -> None:
        """What is not prepared yet is asked for again when the next agent listens."""
        self._stopping.set()
        self.attempts.stop()

    def _pod(self, call: Call) -> Workload | None:
        """It may be a moment until the watch brings it."""
        for _ in range(round(_SOON_S / _LOOK_S)):
            pod = self.node.pod_of(call.pod)
            if pod is not None and pod.uid == call.uid:
                return pod
            self._stopping.wait(_LOOK_S)
        return None

    def _is_to_wake(self, pod: Workload, call: Call) -> bool:
        named, tell = pod.wishes.restore_from, self.attempts.tell
        if call.container != pod.seat_container or not (named or self.heritage.may(pod)):
            return False
        if call.bundle is None:
            if named:
                tell(pod, "what makes containers on this node cannot restore them")
            return False
        woken = self.notes.of(pod.uid)
        if woken and not wakes_again(pod):
            tell(pod, f"it was woken from {woken} before, and starts again cold")
            return False
        return True

    # once it is made

    def held(self, call: Call) -> None:
        """It is there, stopped. Heard twice is fine. Raises NotKnown, OSError."""
        life = self.lives.get(call.pod)
        if life is None or life.id != call.container_id:
            raise NotKnown(f"{call.pod} was restored, and nobody here prepared that")
        started = processes.started(call.pid)
        if started is None or life.record.pid:
            return
        with life.held():
            made = replace(life.record, pid=call.pid, pid_started=started, exec_fifo=str(call.fifo))
            life.record = self.stage.tools.journal.write(made)
        self.heritage.made(life.record.uid)
        self._made(life)
        self._wake_up_aside(life)

    def made_cold(self, call: Call) -> None:
        """Where it was to be restored: the runtime had no answer in time, and did not wait on."""
        self.heritage.made(call.uid)
        attempt = self.attempts.take(call.uid, call.container_id)
        life = self.lives.get(call.pod)
        if life is None or life.id != call.container_id or life.record.pid:
            return
        self.unborn.give_up(life.key, life.record.uid)
        why = "it starts cold: what made its container did not wait for the checkpoint"
        self.stage.teller.wake_failed(life.key, life.record.uid, why)
        self._release_aside(attempt)

    def _made(self, life: Life) -> None:
        """What the runtime took, as a phase."""
        attempt = self.attempts.take(life.record.uid, life.id)
        if attempt is not None:
            seconds = self.stage.tools.clock.monotonic() - attempt.answered
            life.woke = (*life.woke, PhaseTime(name="restore", seconds=seconds))

    def go_on(self, lives: Iterable[Life]) -> None:
        """With those that an agent before us had begun and that have their process."""
        ours = list(lives)
        restoring = {one.record.uid for one in ours if one.record.mark is Mark.RESTORING}
        self.readings.keep(restoring)
        for life in ours:
            if life.record.mark is Mark.RESTORING:
                self.readings.begin(
                    life.record.uid, *key_of(life.record.checkpoint, life.key.namespace)
                )
                if life.record.pid:
                    self._wake_up_aside(life)

    def _wake_up_aside(self, life: Life) -> None:
        threading.Thread(target=self.wake_up, args=(life,), name="wake-up", daemon=True).start()

    def wake_up(self, life: Life) -> None:
        """From a process that stands, to a workload that is parked and wants its GPU."""
        self.containers.watch(life)
        story = self.stage.story(life, Doing.WAKING)

        def away(one: Life, why: str) -> None:
            self.stage.teller.wake_failed(one.key, one.record.uid, why)

        endings = Endings(happening=Happening.LOST, tell=away)
        run = lambda: wake.finish(story, self.images)  # noqa: E731
        try:
            done = self.stage.run(life, story, run, self.coordinator, endings)
        finally:
            self.readings.end(life.record.uid)
        if not done:
            return
        life.woke = (*life.woke, *story.watch.phases()[:-1])
        self._note(life)
        self.coordinator.happened(life, Happening.WOKEN)
        self.coordinator.want(life.key)
        uid = life.record.uid
        self.coordinator.desire(life.key, uid, self.node.desired_of(life.key, uid))
        self.stage.teller.woken(life)

    def _note(self, life: Life) -> None:
        uid = life.record.uid
        if self.node.synced():
            self.notes.prune({pod.uid for pod in self.node.pods()} | {uid})
        self.notes.keep(uid, life.record.checkpoint)

    def ended(self, call: Call) -> None:
        """A container that was to be restored was not: the next try is without that checkpoint."""
        attempt = self.attempts.take(call.uid, call.container_id)
        life = self.lives.get(call.pod)
        if not call.failed or life is None or life.id != call.container_id:
            return
        name = life.record.checkpoint
        self.attempts.failed(life.record.uid, name)
        why = f"not from checkpoint {name}: {call.failed}"
        self.stage.teller.wake_failed(life.key, life.record.uid, why)
        self._release_aside(attempt)

    def over(self, life: Life) -> None:
        """It is gone: nothing is kept for it."""
        self.attempts.over(life.record.uid)

    def _release_aside(self, attempt: Attempt | None) -> None:
        """Whoever told must not wait for the API server."""
        if attempt is not None:
            release = self.attempts.release
            threading.Thread(target=release, args=(attempt,), daemon=True).start()


def wakes_again(pod: Workload) -> bool:
    """A job loses the least by going back to its checkpoint; a server that failed in the state it
    was woken in would fail again, and begins anew."""
    return pod.wishes.workload_class in RETURNING
