"""
A pod's way from the checkpoints it names to the answer that its container gets.

Called by: `wakings`. One thread for each pod that is under way. What is claimed, fetched and put
into the pool is the pod's; only the last step is one of its container. So it begins when the pod's
sandbox is made, and a container that comes in place of one that the kubelet gave up waiting for
goes on where that one was.
Rule: nothing is woken without a claim. Rule: candidates are tried in order; one that cannot be used
is given back, people are told why, and after the last it starts cold.
Rule: the container that came last is the one that is meant; one before it is refused.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from kybernate.api.errors import Malformed
from kybernate.clients.checkpoints import Claimed
from kybernate.clients.errors import Refused, Retry, Unavailable
from kybernate.clients.runtimecalls import Call, Op
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import PodUid
from kybernate.model.workload import Workload
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints.fetching import Fetched
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.disk.records import Mark
from nodeagent.images import ProcessImages
from nodeagent.images.body import read_config
from nodeagent.lives.feed import Doing
from nodeagent.lives.life import Life
from nodeagent.stories import wake
from nodeagent.stories.stage import Far, Stage
from nodeagent.stories.story import Story
from nodeagent.turns.coordinator import Coordinator
from nodeagent.waking.attempt import ARRIVED, COLD, COMING, SUPERSEDED, Attempt, NotPrepared, Ready
from nodeagent.waking.candidates import Candidates
from nodeagent.waking.heritage import Heritage
from nodeagent.waking.readings import Readings
from nodeagent.waking.unborn import Unborn

_NONE = "it starts cold: none of its checkpoints can be used"


@dataclass(slots=True, kw_only=True)
class Attempts:
    """Thread safe."""

    stage: Stage
    coordinator: Coordinator
    images: ProcessImages
    candidates: Candidates
    unborn: Unborn
    heritage: Heritage
    here: Callable[[Mapping[str, object]], Fingerprint]
    readings: Readings
    _under_way: dict[PodUid, Attempt] = field(default_factory=dict)
    _failed: dict[PodUid, set[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def answer(self, pod: Workload, call: Call, within: float) -> Mapping[str, str]:
        """For this container; that it is on its way after `within` seconds."""
        with self._lock:
            attempt = self._meant(pod, call)
        if attempt is None:
            return SUPERSEDED
        if not attempt.done.wait(within):
            return COMING
        with self._lock:
            if attempt.call.container_id != call.container_id:
                return SUPERSEDED
            if attempt.answer is COLD:
                self._forget(attempt)
            return attempt.answer

    def stop(self) -> None:
        """What is not prepared yet is asked for again when the next agent listens."""
        self._stopping.set()

    def take(self, uid: PodUid, container_id: str) -> Attempt | None:
        """The one that was answered for this container; it is under way no more."""
        with self._lock:
            attempt = self._under_way.get(uid)
            if attempt is None or attempt.call.container_id != container_id:
                return None
            self._forget(attempt)
            return attempt

    def over(self, uid: PodUid) -> None:
        """The pod is gone, or its container is."""
        with self._lock:
            attempt = self._under_way.get(uid)
            if attempt is not None and attempt.done.is_set():
                self._forget(attempt)
        self.readings.end(uid)

    def failed(self, pod: PodUid, name: str) -> None:
        """Its next container wakes from another."""
        self._failed.setdefault(pod, set()).add(name)

    def release(self, attempt: Attempt) -> None:
        """Give back what it claimed."""
        self.readings.end(attempt.pod.uid)
        attempt.ready = None
        if attempt.claimed is not None:
            self.candidates.give_back(attempt.claimed)
            attempt.claimed = None

    def tell(self, pod: Workload, why: str) -> None:
        """People."""
        self.stage.teller.wake_failed(pod.key, pod.uid, why)

    # who is meant, under the lock

    def _meant(self, pod: Workload, call: Call) -> Attempt | None:
        attempt = self._under_way.get(pod.uid)
        if attempt is None:
            attempt = self._under_way[pod.uid] = Attempt(pod=pod, call=call)
            self._begin(attempt)
        elif call.container_id in attempt.before:
            return None
        elif call.container_id != attempt.call.container_id:
            attempt.before.add(attempt.call.container_id)
            attempt.call = call
            if attempt.done.is_set():
                attempt.done.clear()
                self._begin(attempt)
        return attempt

    def _forget(self, attempt: Attempt) -> None:
        if self._under_way.get(attempt.pod.uid) is attempt:
            del self._under_way[attempt.pod.uid]

    # its thread

    def _begin(self, attempt: Attempt) -> None:
        name = f"wake-{attempt.pod.key.name}"
        threading.Thread(target=self._run, args=(attempt,), name=name, daemon=True).start()

    def _run(self, attempt: Attempt) -> None:
        while True:
            call = attempt.call
            answer = self._answered(attempt, call)
            with self._lock:
                if answer is None or attempt.call is not call:
                    continue  # the next candidate; or another container came meanwhile
                if answer.get("again") and attempt.ready is None:
                    self._forget(attempt)
                attempt.answer = answer
                attempt.answered = self.stage.tools.clock.monotonic()
                attempt.done.set()
                return

    def _answered(self, attempt: Attempt, call: Call) -> Mapping[str, str] | None:
        """None: look again."""
        try:
            if attempt.ready is None:
                return self._fetched(attempt, call)
            return self._made(attempt, call, attempt.ready)
        except Refused as refused:
            self._give_up(attempt, f"it starts cold: {refused}")
        except Exception as fault:  # ours: the runtime waits for a word
            get_logger(workload=str(attempt.pod.key)).exception("a waking failed")
            self._give_up(attempt, f"fault in the agent: {fault}")
        return COLD

    def _fetched(self, attempt: Attempt, call: Call) -> Mapping[str, str] | None:
        """None once the contents of one are in the pool; else why it goes no further."""
        pod = attempt.pod
        try:
            names = self._names(attempt)
            life = self.unborn.begin(pod, call.container_id, self._stopping) if names else None
            if names and life is None:
                return COMING
            if life is not None and any(self._is_usable(attempt, life, one, call) for one in names):
                return None
        except Retry as away:
            get_logger(workload=str(pod.key)).info("not yet", why=str(away))
            self._drop(attempt)
            return COMING
        tried = names or attempt.tried
        self._give_up(
            attempt, "it starts cold: none of its checkpoints can be used" if tried else ""
        )
        return COLD

    def _names(self, attempt: Attempt) -> tuple[str, ...]:
        pod = attempt.pod
        not_these = attempt.tried | self._failed.get(pod.uid, set())
        return tuple(one for one in self.heritage.names(pod) if one not in not_these)

    def _is_usable(self, attempt: Attempt, life: Life, name: str, call: Call) -> bool:
        """Whether its contents came into the pool. Raises Unavailable."""
        try:
            attempt.claimed = self.candidates.claim(attempt.pod, name)
            with life.held():
                attempt.ready = self._contents(attempt.claimed, name, life, self._here(call))
        except Unavailable:
            raise
        except (Refused, Retry, OSError, Malformed) as error:
            self._next(attempt, name, error)
            return False
        return True

    def _here(self, call: Call) -> Fingerprint | None:
        """None for a sandbox, which tells nothing of the container to come."""
        if call.op is Op.ARRIVING:
            return None
        if call.bundle is None:
            raise NotPrepared("what makes its container named no bundle")
        return self.here(read_config(call.bundle))

    def _contents(self, claimed: Claimed, name: str, life: Life, here: Fingerprint | None) -> Ready:
        story = self.stage.story(life, Doing.WAKING)
        life.record = story.mark(Mark.WAKING, checkpoint=name)
        self.unborn.show(life)

        def told(came: Fetched) -> None:
            far = Far(done=came.done, total=came.total, left=came.seconds_left)
            self.stage.progress(life, story, Doing.WAKING, far)

        clock, took = self.stage.tools.clock, 0.0

        def use(sealed: Sealed) -> None:
            nonlocal took
            began = clock.monotonic()
            try:
                self._take_out(life, story, sealed)
            finally:
                took += clock.monotonic() - began

        began = clock.monotonic()
        sealed = self.candidates.have(claimed, here, use, told)
        story.watch.add("fetch and verify", clock.monotonic() - began - took)
        image = self.readings.image_of(life.record.uid, sealed)
        return Ready(life=life, story=story, sealed=sealed, image=image, here=here)

    def _take_out(self, life: Life, story: Story, sealed: Sealed) -> None:
        """Its contents into the pool, as they stand in packs, its process image into a folder,
        which may have to wait for them to come. Raises Unusable, Refused, Retry, OSError."""
        uid = life.record.uid
        self.readings.begin(uid, sealed.manifest.namespace, sealed.manifest.name)
        wake.fill(story, sealed)
        with story.watch.phase("image"):
            self.readings.take_out(uid, sealed)

    def _made(self, attempt: Attempt, call: Call, ready: Ready) -> Mapping[str, str] | None:
        """The last step, for this container; None where it is to wake from another."""
        life = ready.life
        if life.gone:
            self._drop(attempt)
            return COMING
        try:
            if call.op is Op.ARRIVING:
                return ARRIVED
            if call.bundle is None or not call.bundle.exists():
                return COMING  # nobody waits for it any more; its pod's next container comes
            here = self.here(read_config(call.bundle))
            if ready.here is None:
                self.candidates.check(ready.sealed, here)
            elif here != ready.here:
                self._drop(attempt)
                return None
            with life.held():
                return self._prepared(ready, call)
        except (Refused, Retry, OSError, Malformed) as error:
            self._next(attempt, ready.story.record.checkpoint, error)
            return None

    def _prepared(self, ready: Ready, call: Call) -> Mapping[str, str]:
        life, story = ready.life, ready.story
        handed_over = life.id != call.container_id
        story.record = replace(story.record, container_id=call.container_id)
        assert call.bundle is not None
        fields = wake.prepare(story, self.images, ready.sealed, ready.image, call.bundle)
        life.record = story.record
        life.woke = story.watch.phases()[:-1]
        if handed_over:
            self.coordinator.waking(life.tenancy())
        if changed := fields.get("changed", ""):
            get_logger(workload=str(life.key)).info("woken elsewhere", changed=changed)
        return {"ok": "restore", **{k: v for k, v in fields.items() if k != "changed"}}

    def _next(self, attempt: Attempt, name: str, error: Exception) -> None:
        """This one is not to be woken from."""
        self.tell(attempt.pod, f"not from checkpoint {name}: {error}")
        attempt.tried.add(name)
        self.release(attempt)

    def _drop(self, attempt: Attempt) -> None:
        """Of what it had, nothing is left but the claim, which its pod may use again."""
        self.readings.end(attempt.pod.uid)
        attempt.ready = None
        self.unborn.give_up(attempt.pod.key, attempt.pod.uid)

    def _give_up(self, attempt: Attempt, why: str) -> None:
        self._drop(attempt)
        if why:
            self.tell(attempt.pod, why)
