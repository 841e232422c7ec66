"""
Answering the runtime that is about to make a container: cold, or from a checkpoint its pod claims.

Called by: the runtime's socket (`creating`, `held` of a restored container, `ended`). An answer is
given at once; while a checkpoint is on its way the runtime is told so, and asks again.
Rule: nothing is woken without a claim. Rule: candidates are tried in the order the pod names them;
one that cannot be used is given back, people are told why, and after the last it starts cold.
Rule: a container that is made again in the same pod wakes again from what the pod has claimed,
where its class is training or batch; a server begins cold.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from kybernate.api.errors import Malformed
from kybernate.clients.checkpoints import Claimed
from kybernate.clients.errors import Refused, Retry, Unavailable
from kybernate.clients.runtimecalls import Call
from kybernate.decisions.lifecycle import Happening
from kybernate.decisions.tenancy import RETURNING
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import PodUid
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger
from nodeagent import processes, wake
from nodeagent.candidates import Candidates
from nodeagent.containers import Containers, Node
from nodeagent.coordinator import Coordinator
from nodeagent.feed import Doing
from nodeagent.images import ProcessImages
from nodeagent.images.body import read_config
from nodeagent.lives import Life, Lives
from nodeagent.phases import PhaseTime
from nodeagent.records import Mark
from nodeagent.stage import Endings, Stage
from nodeagent.unborn import Unborn
from nodeagent.wokennotes import WokenNotes

COLD = {"ok": "cold"}
_COMING = {"error": "its checkpoint is on its way", "again": "yes", "coming": "yes"}
_UNKNOWN = {"error": "its pod is not known yet", "again": "yes"}
_SOON_S = 1.0  # the runtime waits twice as long for an answer
_LOOK_S = 0.1


class NotKnown(Refused):
    """A restored container that nobody here prepared."""


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """One container's way to its answer."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: Mapping[str, str] = field(default_factory=lambda: COLD)
    claimed: Claimed | None = None
    answered: float = 0.0  # monotonic


@dataclass(slots=True, kw_only=True)
class Wakings:
    """Thread safe."""

    node: Node
    stage: Stage
    lives: Lives
    coordinator: Coordinator
    containers: Containers
    images: ProcessImages
    candidates: Candidates
    unborn: Unborn
    here: Callable[[Mapping[str, object]], Fingerprint]
    notes: WokenNotes
    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    _failed: dict[PodUid, set[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)

    # before it is made

    def creating(self, call: Call) -> Mapping[str, str]:
        """The answer, or that it is on its way."""
        pod = self._pod(call)
        if pod is None:
            return _UNKNOWN
        if not self._is_to_wake(pod, call):
            return COLD
        with self._lock:
            attempt = self._attempts.get(call.container_id)
            if attempt is None:
                attempt = self._attempts[call.container_id] = _Attempt()
                self._begin(attempt, pod, call)
        if not attempt.done.wait(_SOON_S):
            return _COMING
        if attempt.answer is COLD:
            with self._lock:
                self._attempts.pop(call.container_id, None)
        return attempt.answer

    def stop(self) -> None:
        """What is not prepared yet is asked for again when the next agent listens."""
        self._stopping.set()

    def _pod(self, call: Call) -> Workload | None:
        """It may be a moment until the watch brings it."""
        for _ in range(round(_SOON_S / _LOOK_S)):
            pod = self.node.pod_of(call.pod)
            if pod is not None and pod.uid == call.uid:
                return pod
            self._stopping.wait(_LOOK_S)
        return None

    def _is_to_wake(self, pod: Workload, call: Call) -> bool:
        if not pod.wishes.restore_from or call.container != pod.seat_container:
            return False
        if call.bundle is None:
            self._tell(pod, "what makes containers on this node cannot restore them")
            return False
        woken = self.notes.of(pod.uid)
        if woken and not wakes_again(pod):
            self._tell(pod, f"it was woken from {woken} before, and starts again cold")
            return False
        return True

    def _begin(self, attempt: _Attempt, pod: Workload, call: Call) -> None:
        def run() -> None:
            try:
                attempt.answer = self._answer(attempt, pod, call)
            except Refused as refused:
                self.unborn.give_up(pod.key, call.container_id)
                self._tell(pod, f"it starts cold: {refused}")
            except Exception as fault:  # ours: the runtime waits for a word
                get_logger(workload=str(pod.key)).exception("a waking failed")
                self.unborn.give_up(pod.key, call.container_id)
                self._tell(pod, f"fault in the agent: {fault}")
            if attempt.answer.get("again"):
                with self._lock:
                    self._attempts.pop(call.container_id, None)
            attempt.answered = self.stage.tools.clock.monotonic()
            attempt.done.set()

        threading.Thread(target=run, name=f"wake-{pod.key.name}", daemon=True).start()

    def _answer(self, attempt: _Attempt, pod: Workload, call: Call) -> Mapping[str, str]:
        life = self.unborn.begin(pod, call.container_id, self._stopping)
        if life is None:
            return _COMING
        assert call.bundle is not None
        here = self.here(read_config(call.bundle))
        tried = self._failed.get(pod.uid, set())
        for name in (one for one in pod.wishes.restore_from if one not in tried):
            try:
                attempt.claimed = self.candidates.claim(pod, name)
                return self._prepared(life, attempt.claimed, here, call)
            except Unavailable as away:
                get_logger(workload=str(pod.key)).info("no claim yet", why=str(away))
                self.unborn.give_up(pod.key, call.container_id)
                return _COMING
            except (Refused, Retry, OSError, Malformed) as error:
                self._tell(pod, f"not from checkpoint {name}: {error}")
                self._release(attempt)
        self.unborn.give_up(pod.key, call.container_id)
        self._tell(pod, "it starts cold: none of its checkpoints can be used")
        return COLD

    def _prepared(
        self, life: Life, claimed: Claimed, here: Fingerprint, call: Call
    ) -> Mapping[str, str]:
        assert call.bundle is not None
        story = self.stage.story(life, Doing.WAKING)
        with life.lock:
            life.record = story.mark(Mark.WAKING, checkpoint=claimed.checkpoint.name)
            self.unborn.show(life)
            with story.watch.phase("fetch and verify"):
                sealed = self.candidates.have(claimed, here)
            with self.candidates.store.using(life.key.namespace, sealed.manifest.name):
                fields = wake.prepare(story, self.images, sealed, call.bundle)
            life.record = story.record
            life.woke = story.watch.phases()[:-1]
        changed = fields.get("changed", "")
        if changed:
            get_logger(workload=str(life.key)).info("woken elsewhere", changed=changed)
        return {"ok": "restore", **{k: v for k, v in fields.items() if k != "changed"}}

    def _release(self, attempt: _Attempt) -> None:
        if attempt.claimed is not None:
            self.candidates.give_back(attempt.claimed)
            attempt.claimed = None

    def _tell(self, pod: Workload, why: str) -> None:
        self.stage.teller.wake_failed(pod.key, pod.uid, why)

    # once it is made

    def held(self, call: Call) -> None:
        """It is there, stopped. Heard twice is fine. Raises NotKnown, OSError."""
        life = self.lives.get(call.pod)
        if life is None or life.id != call.container_id:
            raise NotKnown(f"{call.pod} was restored, and nobody here prepared that")
        started = processes.started(call.pid)
        if started is None or life.record.pid:
            return
        with life.lock:
            made = replace(life.record, pid=call.pid, pid_started=started, exec_fifo=str(call.fifo))
            life.record = self.stage.tools.journal.write(made)
        self._made(life)
        self._wake_up_aside(life)

    def made_cold(self, call: Call) -> None:
        """Where it was to be restored: the runtime had no answer in time, and did not wait on."""
        with self._lock:
            attempt = self._attempts.pop(call.container_id, None)
        life = self.lives.get(call.pod)
        if life is None or life.id != call.container_id or life.record.pid:
            return
        self.unborn.give_up(life.key, life.id)
        why = "it starts cold: what made its container did not wait for the checkpoint"
        self.stage.teller.wake_failed(life.key, life.record.uid, why)
        if attempt is not None:
            threading.Thread(target=self._release, args=(attempt,), daemon=True).start()

    def _made(self, life: Life) -> None:
        """What the runtime took, as a phase."""
        with self._lock:
            attempt = self._attempts.pop(life.id, None)
        if attempt is not None:
            seconds = self.stage.tools.clock.monotonic() - attempt.answered
            life.woke = (*life.woke, PhaseTime(name="restore", seconds=seconds))

    def go_on(self, lives: Iterable[Life]) -> None:
        """With those that an agent before us had begun and that have their process."""
        for life in lives:
            if life.record.mark is Mark.RESTORING and life.record.pid:
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
        if not self.stage.run(life, story, run, self.coordinator, endings):
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
        with self._lock:
            attempt = self._attempts.pop(call.container_id, None)
        life = self.lives.get(call.pod)
        if not call.failed or life is None or life.id != call.container_id:
            return
        name = life.record.checkpoint
        self._failed.setdefault(life.record.uid, set()).add(name)
        why = f"not from checkpoint {name}: {call.failed}"
        self.stage.teller.wake_failed(life.key, life.record.uid, why)
        if attempt is not None:
            threading.Thread(target=self._release, args=(attempt,), daemon=True).start()


def wakes_again(pod: Workload) -> bool:
    """A job loses the least by going back to its checkpoint; a server that failed in the state it
    was woken in would fail again, and begins anew."""
    return pod.wishes.workload_class in RETURNING
