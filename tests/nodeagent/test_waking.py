"""
A new pod is made from a checkpoint it has claimed, or starts cold, and people are told.

Real: journal, pool, store, notes. Faked: the card, runc and CRIU, claims, the coordinator.
"""

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.clients.checkpoints import Claimed
from kybernate.clients.errors import Unavailable
from kybernate.clients.runtimecalls import Call, Op
from kybernate.decisions.lifecycle import Happening
from kybernate.model.checkpoint import Claim, Fingerprint, Flaw
from kybernate.model.gpu import Seat
from kybernate.model.ids import GpuUuid, GroupName, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import Desired, Wishes, Workload, WorkloadClass
from kybernate.testing.agentnode import wait_for
from kybernate.testing.builders import a_group
from nodeagent.checkpoints.fetching import Fetched
from nodeagent.disk.journal import BreakingJournal
from nodeagent.disk.records import Mark
from nodeagent.disk.woken import WokenNotes
from nodeagent.images import Unrestorable
from nodeagent.linux import processes
from nodeagent.lives.feed import Feed
from nodeagent.lives.life import Lives
from nodeagent.lives.newcomers import Place
from nodeagent.mechanisms import NotPossible
from nodeagent.stories import recovery, seal
from nodeagent.stories.seal import Means
from nodeagent.stories.stage import Stage
from nodeagent.waking.attempt import SUPERSEDED
from nodeagent.waking.attempts import Attempts
from nodeagent.waking.candidates import NotClaimed
from nodeagent.waking.heritage import Heritage
from nodeagent.waking.readings import Readings
from nodeagent.waking.unborn import Unborn
from nodeagent.waking.wakings import NotKnown, Wakings

Desk = Any  # tests/nodeagent/conftest.py
KEY, UID = WorkloadKey("default", "b"), PodUid("uid-b")
GROUP = a_group(0)
CARD = GpuUuid("GPU-0")
CONTENTS = {"weights": b"w" * 4096, "cache": b"c" * 1024}
HERE = Fingerprint(
    kernel="6.1", architecture="x", boot="b", image="model:1", command=("serve",), mechanism="fake"
)


class Died(BaseException):
    """kill -9."""


@dataclass
class Candidates:
    """Claims in a dictionary: by name, what stops it or None."""

    store: Any
    stops: dict[str, list[Exception]] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    comes: threading.Event = field(default_factory=threading.Event)
    fetched: int = 0
    misfits: list[Exception] = field(default_factory=list)
    namespace: str = "default"
    elsewhere: list[Callable[[], None]] = field(default_factory=list)  # other copies: they mend it

    def __post_init__(self):
        self.comes.set()

    def claim(self, pod, name):
        for error in self.stops.get(name, []):
            if isinstance(error, NotClaimed | Unavailable):
                self.stops[name].remove(error)
                raise error
        self.held.append(name)
        known = SimpleNamespace(name=name.rpartition("/")[2], namespace=self.namespace)
        return Claimed(checkpoint=known, claim=Claim(pod_uid=pod.uid, node=NodeName("n")))

    def have(self, claimed, here, use, told):
        name = claimed.checkpoint.name
        for error in self.stops.get(name, []):
            raise error
        assert here in (HERE, None)
        assert self.comes.wait(60.0)
        self.fetched += 1
        told(Fetched(done=1, total=2, rate=4.0))
        sealed = self.store.believed(self.namespace, "sealed")
        try:
            use(sealed)
        except Unusable:
            if not self.elsewhere:
                raise
            self.elsewhere.pop()()
            use(sealed)
        return sealed

    def check(self, sealed, here):
        assert here == HERE
        for error in self.misfits:
            raise error

    def give_back(self, claimed):
        self.held.remove(claimed.checkpoint.name)


class Coordinator:
    """Remembers what it is told."""

    def __init__(self):
        self.told = []

    def waking(self, tenancy):
        self.told.append((tenancy.state.value, tenancy.key.name))

    def gone(self, life):
        self.told.append(("gone", life.key.name))

    def happened(self, life, happening):
        self.told.append((happening, life.key.name))
        return True

    def want(self, key):
        self.told.append(("wanted", key.name))

    def desire(self, *_):
        pass


class Teller:
    def __init__(self):
        self.said = []

    def __getattr__(self, name):
        return lambda *told: self.said.append((name, *told[2:]))


class Scene:
    """A node with a checkpoint of a workload that is gone, and a pod that names it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.pods = {KEY: pod("first", "second")}
        self.api: Any = None
        self.bundle = desk.folder / "bundle"
        _sealed(desk)
        self.candidates = Candidates(desk.store())
        self.coordinator, self.teller, self.lives = Coordinator(), Teller(), Lives()
        self.ended, self.watched = [], []
        self.notes = WokenNotes(desk.folder / "woken")
        self.wakings = self.agent()

    def agent(self, journal=None) -> Wakings:
        desk = self.desk
        tools = replace(desk.tools, journal=journal or desk.journal)
        place = Place(uuids={0: CARD}, boot=processes.boot_id(), clock=desk.clock, parkable=True)
        node: Any = SimpleNamespace(
            groups={GROUP.name: GROUP}, uuids={0: CARD}, place=place, pod_of=self.pods.get,
            seats=SimpleNamespace(seats=lambda: {KEY: Seat(GroupName("G0"), 0)}),
            desired_of=lambda *_: Desired.AUTO, synced=lambda: True,
            pods=lambda: tuple(self.pods.values()),
        )  # fmt: skip
        containers: Any = SimpleNamespace(
            ended=self._ended, watch=lambda life: self.watched.append(life.id)
        )
        nobody: Any = SimpleNamespace(bus=lambda: None, all=dict)
        stage = Stage(tools=tools, feed=Feed(), teller=self.teller, bandwidths=nobody)
        candidates: Any = self.candidates
        coordinator: Any = self.coordinator
        unborn = Unborn(
            node=node, stage=stage, lives=self.lives, coordinator=coordinator,
            containers=containers,
        )  # fmt: skip
        readings, heritage = Readings(candidates.store), Heritage(api=self.api)
        attempts = Attempts(
            stage=stage, coordinator=coordinator, images=desk.images, candidates=candidates,
            unborn=unborn, heritage=heritage, here=lambda config: HERE, readings=readings,
        )  # fmt: skip
        return Wakings(
            node=node, stage=stage, lives=self.lives, coordinator=coordinator, unborn=unborn,
            containers=containers, images=desk.images, attempts=attempts, heritage=heritage,
            readings=readings, notes=self.notes,
        )  # fmt: skip

    def _ended(self, life):
        self.ended.append(life.id)
        self.lives.drop(life)

    def ask(self, container_id="c2", **more):
        """What the runtime is answered now."""
        call = Call(
            op=Op.CREATING, pod=KEY, uid=UID, container="model", container_id=container_id,
            bundle=self.bundle,
        )  # fmt: skip
        return self.wakings.creating(replace(call, **more))

    def create(self, container_id="c2", **more):
        """What the runtime is answered in the end."""
        answers = []

        def answered():
            answers.append(self.ask(container_id, **more))
            return "again" not in answers[-1]

        wait_for(answered, "it is answered")
        return answers[-1]

    def held(self, container_id="c2"):
        fifo = self.desk.folder / "runc" / container_id / "exec.fifo"
        fifo.parent.mkdir(exist_ok=True)
        state = (self.desk.folder / "runc" / "c1" / "state.json").read_bytes()
        (fifo.parent / "state.json").write_bytes(state)
        self.wakings.held(
            Call(
                op=Op.HELD,
                pod=KEY,
                uid=UID,
                container="model",
                container_id=container_id,
                pid=os.getpid(),
                fifo=fifo,
                restored=True,
            )
        )

    def awake(self):
        wait_for(lambda: ("wanted", "b") in self.coordinator.told, "it wants its GPU")
        return self.lives.get(KEY)

    @property
    def failures(self):
        return [words for name, *words in self.teller.said if name == "wake_failed"]


def pod(*names, cls=WorkloadClass.INFERENCE):
    wishes = Wishes(vram=2**30, restore_from=names, workload_class=cls)
    return Workload(
        key=KEY, uid=UID, resource=ResourceName("kyb.ai/gpu-1x-seat"), seat_container="model",
        wishes=wishes,
    )  # fmt: skip


def _sealed(desk: Desk) -> None:
    def describe(record, body):
        return Facts(
            workload="a", pod="a", pod_uid=record.uid, container="model", node=NodeName("n"),
            sealed_at=1.0, made_in=HERE,
        )  # fmt: skip

    means = Means(store=desk.store(), images=desk.images, describe=describe)
    seal.seal(desk.story(desk.parked()), means, "sealed")
    desk.pool.free("uid-a")
    desk.journal.forget("uid-a")
    desk.mechanism.vram, desk.mechanism.locked = {}, False
    desk.freezer.stands = False
    desk.mechanism.log.clear()


@pytest.fixture
def scene(desk: Desk) -> Scene:
    return Scene(desk)


def test_a_pod_is_made_from_its_first_checkpoint_and_begins_life_parked(scene):
    answer = scene.create()
    assert (answer["ok"], answer["work"]) == ("restore", str(scene.bundle))
    assert scene.desk.on_disk() is Mark.RESTORING
    scene.held()
    life = scene.awake()
    assert (life.record.mark, life.record.checkpoint) == (Mark.PARKED, "first")
    slot = scene.desk.pool.slot(UID)
    assert {p.name: b"".join(slot.read(p.name)) for p in slot.parts()} == CONTENTS
    assert {p.uuid for p in slot.parts()} == {CARD}
    assert scene.desk.mechanism.vram == {"weights": None, "cache": None}
    assert scene.desk.freezer.stands
    assert scene.coordinator.told[1:] == [(Happening.WOKEN, "b"), ("wanted", "b")]
    assert (scene.watched, scene.candidates.held) == (["c2"], ["first"])
    names = [phase.name for phase in life.woke]
    assert {"fetch and verify", "contents", "prepare", "restore", "adopt"} <= set(names)


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(NotClaimed("another pod has it"), id="claimed"),
        pytest.param(Unusable(Flaw.FILE_ALTERED, "x"), id="altered"),
    ],
)
def test_a_candidate_that_cannot_be_used_is_given_back_and_the_next_one_is_tried(scene, stop):
    scene.candidates.stops["first"] = [stop]
    assert scene.create()["ok"] == "restore"
    assert scene.candidates.held == ["second"]
    assert scene.lives.get(KEY).record.checkpoint == "second"
    assert scene.failures == [[f"not from checkpoint first: {stop}"]]


def flipped(desk: Desk, at: float) -> Callable[[], None]:
    """A bit of what the checkpoint holds, so far into its pack; called, it is put right."""
    [pack] = (desk.folder / "checkpoints").glob("domains/*/packs/*/*")
    good = pack.read_bytes()
    content = bytearray(good)
    content[int(at * len(good))] ^= 1
    pack.write_bytes(content)
    return lambda: pack.write_bytes(good)


def left_over(desk: Desk) -> list[Path]:
    """Of process images that were taken out."""
    return list((desk.folder / "checkpoints/plain").iterdir())


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_refused_before_anything_runs(scene, at):
    flipped(scene.desk, at)
    assert scene.create() == {"ok": "cold"}
    told = "not from checkpoint first: a pack of its contents is not what was sealed"
    assert scene.failures[0][0].startswith(told)
    assert "restoration" not in scene.desk.images.log  # nothing was prepared
    assert (scene.candidates.held, scene.desk.pool.slots()) == ([], {})
    assert left_over(scene.desk) == []


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_where_one_copy_is_damaged_another_is_had(scene, at):
    scene.candidates.elsewhere = [flipped(scene.desk, at)]
    assert scene.create()["ok"] == "restore"
    assert (scene.failures, scene.candidates.held) == ([], ["first"])
    scene.held()
    scene.awake()
    slot = scene.desk.pool.slot(UID)
    assert {p.name: b"".join(slot.read(p.name)) for p in slot.parts()} == CONTENTS


def test_the_process_image_lies_in_a_folder_of_its_own_until_the_container_stands(scene):
    assert scene.create()["ok"] == "restore"
    [folder] = left_over(scene.desk)
    [image] = folder.iterdir()
    assert [path.read_bytes() for path in image.iterdir()] == [b"p" * 100]
    scene.wakings = scene.agent()  # another one: what a container may be made from stays
    stranger = folder.with_name("wake-uid-of-nobody")
    stranger.mkdir()
    scene.wakings.go_on([scene.lives.get(KEY)])
    assert left_over(scene.desk) == [folder]
    scene.held()
    scene.awake()
    wait_for(lambda: left_over(scene.desk) == [], "it is removed")


def test_after_the_last_candidate_it_starts_cold_and_nothing_is_left(scene):
    scene.desk.images.breaks = [Unrestorable("another kernel"), Unrestorable("another kernel")]
    assert scene.create() == {"ok": "cold"}
    assert scene.failures[-1] == ["it starts cold: none of its checkpoints can be used"]
    assert scene.candidates.held == []
    assert (scene.lives.get(KEY), scene.desk.pool.slots()) == (None, {})
    assert scene.desk.journal.read_all() == ((), ())
    assert scene.coordinator.told[-1] == ("gone", "b")


def test_without_a_word_from_the_api_server_nothing_is_woken_nor_started_cold(scene):
    scene.candidates.stops["first"] = [
        Unavailable(503, "away", "away"),
        Unavailable(503, "away", "away"),
    ]
    assert scene.create()["ok"] == "restore"
    assert scene.candidates.held == ["first"]


def test_a_restore_that_fails_is_not_tried_again(scene):
    assert scene.create()["ok"] == "restore"
    failed = Call(op=Op.ENDED, pod=KEY, uid=UID, container_id="c2", failed="CRIU said no")
    scene.wakings.ended(failed)
    wait_for(lambda: scene.candidates.held == [], "its claim is given back")
    assert scene.failures == [["not from checkpoint first: CRIU said no"]]
    scene.lives.drop(scene.lives.get(KEY))  # what the containers do with one that ended
    assert scene.create("c3")["ok"] == "restore"
    assert scene.candidates.held == ["second"]


def test_a_checkpoint_that_is_deleted_while_a_container_is_made_from_it_goes_afterwards(scene):
    store = scene.candidates.store
    assert scene.create()["ok"] == "restore"
    assert store.delete("default", "sealed")
    assert store.open("default", "sealed")
    scene.held()
    scene.awake()
    wait_for(lambda: store.all() == (), "it goes")


def test_a_gold_image_of_another_namespace_is_kept_while_it_is_read(scene):
    """After a restart of the agent too: what its pod has named says whose it is."""
    scene.pods[KEY] = pod("models/sealed")
    scene.candidates.namespace = "models"
    store = scene.candidates.store
    with store.draft("models", "sealed") as draft:
        like = store.peek("default", "sealed")
        for file in like.manifest.files:
            draft.write(file.path, like.read(file.path))
        draft.seal(like.manifest.facts.as_gold())
    assert scene.create()["ok"] == "restore"
    assert scene.lives.get(KEY).record.checkpoint == "models/sealed"
    scene.wakings.readings.end(UID)
    scene.wakings = scene.agent()
    scene.wakings.go_on([scene.lives.get(KEY)])
    store.delete("models", "sealed")
    assert store.open("models", "sealed")
    scene.held()
    scene.awake()
    assert scene.notes.of(UID) == "models/sealed"
    wait_for(lambda: [one.manifest.namespace for one in store.all()] == ["default"], "it goes")


def test_it_goes_as_well_when_the_container_never_came(scene):
    store = scene.candidates.store
    assert scene.create()["ok"] == "restore"
    store.delete("default", "sealed")
    scene.wakings.over(scene.lives.get(KEY))
    assert store.all() == ()


def test_an_agent_that_comes_back_keeps_what_a_container_is_being_made_from(scene):
    store = scene.candidates.store
    scene.create()
    scene.wakings.readings.end(UID)
    scene.wakings = scene.agent()
    life = scene.lives.get(KEY)
    life.record = replace(life.record, checkpoint="sealed")
    scene.wakings.go_on([life])
    store.delete("default", "sealed")
    assert store.open("default", "sealed")
    scene.held()
    scene.awake()
    wait_for(lambda: store.all() == (), "it goes")


def test_the_next_container_goes_on_where_one_was_that_nobody_waited_for(scene):
    """The kubelet gave up while contents came; they are fetched once, for whichever container."""
    scene.candidates.comes.clear()
    assert scene.ask("c2")["coming"] == "yes"
    assert scene.ask("c3")["coming"] == "yes"
    assert scene.ask("c2") == SUPERSEDED
    scene.candidates.comes.set()
    assert scene.create("c3")["ok"] == "restore"
    assert (scene.candidates.fetched, scene.candidates.held) == (1, ["first"])
    life = scene.lives.get(KEY)
    assert (life.id, scene.desk.on_disk()) == ("c3", Mark.RESTORING)
    scene.held("c3")
    assert scene.awake().record.mark is Mark.PARKED
    assert scene.failures == []


def arriving(scene, sandbox):
    """What the runtime is answered in the end that is about to make a sandbox."""
    asked = Call(op=Op.ARRIVING, pod=KEY, uid=UID, container_id=sandbox)
    answers = []

    def answered():
        answers.append(scene.wakings.arriving(asked))
        return "again" not in answers[-1]

    wait_for(answered, "it is answered")
    return answers[-1]


def test_what_comes_before_the_sandbox_is_there_when_the_container_is_made(scene):
    assert arriving(scene, "s1") == {"ok": "heard"}
    assert (scene.desk.on_disk(), scene.desk.images.log) == (Mark.WAKING, ["dump"])
    assert arriving(scene, "s2") == {"ok": "heard"}  # the kubelet made another sandbox
    assert scene.create("c2")["ok"] == "restore"
    assert (scene.candidates.fetched, scene.candidates.held) == (1, ["first"])
    scene.held("c2")
    assert scene.awake().record.mark is Mark.PARKED


def test_a_checkpoint_that_does_not_fit_the_container_gives_way_to_the_next(scene):
    scene.candidates.misfits = [Unusable(Flaw.OTHER_IMAGE, "model:2")]
    assert arriving(scene, "s1") == {"ok": "heard"}
    assert scene.create("c2")["ok"] == "restore"
    assert scene.candidates.held == ["second"]
    assert "model:2" in scene.failures[0][0]


def test_a_sandbox_of_a_pod_that_names_no_checkpoint_waits_for_nothing(scene):
    scene.pods[KEY] = pod()
    assert arriving(scene, "s1") == {"ok": "cold"}


def test_a_container_whose_bundle_went_meanwhile_costs_nothing(scene):
    scene.candidates.comes.clear()
    bundle = shutil.copytree(scene.bundle, scene.desk.folder / "gone")
    assert scene.ask("c2", bundle=bundle)["coming"] == "yes"
    shutil.rmtree(bundle)
    scene.candidates.comes.set()
    wait_for(lambda: scene.candidates.fetched, "it has come")
    assert scene.ask("c2", bundle=bundle)["coming"] == "yes"
    assert scene.create("c3")["ok"] == "restore"
    assert (scene.candidates.fetched, scene.candidates.held) == (1, ["first"])


def test_a_container_that_comes_after_the_answer_is_answered_anew(scene):
    scene.create("c2")
    assert scene.create("c3")["ok"] == "restore"
    assert (scene.candidates.fetched, scene.lives.get(KEY).id) == (1, "c3")
    assert scene.desk.images.log.count("restoration") == 2
    with pytest.raises(NotKnown):
        scene.held("c2")


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"container": "sidecar"}, id="another container"),
        pytest.param({"bundle": None}, id="nothing that restores"),
    ],
)
def test_what_is_not_to_wake_starts_cold(scene, asked):
    assert scene.create(**asked) == {"ok": "cold"}
    assert scene.candidates.held == []


def test_a_pod_that_names_no_checkpoint_starts_cold(scene):
    scene.pods[KEY] = pod()
    assert scene.create() == {"ok": "cold"}


@pytest.mark.parametrize(
    ("cls", "answer"), [(WorkloadClass.INFERENCE, "cold"), (WorkloadClass.TRAINING, "restore")]
)
def test_a_container_that_is_made_again_wakes_again_where_its_class_means_that(scene, cls, answer):
    scene.pods[KEY] = pod("first", cls=cls)
    scene.create()
    scene.held()
    scene.lives.drop(scene.awake())
    assert scene.create("c3")["ok"] == answer


def test_a_container_that_was_made_cold_after_all_is_let_in_as_such(scene):
    scene.create()
    held = Call(op=Op.HELD, pod=KEY, uid=UID, container="model", container_id="c2", pid=1)
    scene.wakings.made_cold(held)
    assert (scene.lives.get(KEY), scene.desk.pool.slots()) == (None, {})
    assert "it starts cold" in scene.failures[0][0]
    wait_for(lambda: scene.candidates.held == [], "its claim is given back")


def test_a_container_that_nobody_prepared_is_refused(scene):
    with pytest.raises(NotKnown):
        scene.held()


def test_what_cannot_be_taken_up_is_quarantined(scene):
    scene.create()
    scene.desk.mechanism.fail["adopt"] = [NotPossible("other cards")]
    scene.held()
    wait_for(lambda: (Happening.LOST, "b") in scene.coordinator.told, "it is told")
    assert scene.desk.on_disk() is Mark.QUARANTINED


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("mark", [Mark.WAKING, Mark.RESTORING, Mark.PARKED])
def test_an_agent_that_dies_on_the_way_costs_nothing(scene, when, mark):
    """The runtime asks the next agent, or tells it of the container that came meanwhile."""
    scene.wakings = scene.agent(dies_at(scene.desk, f"{when}:{mark.value}"))
    answered = died(scene.ask, scene)

    scene.lives = Lives()
    groups, uuids = {GROUP.name: GROUP}, {0: CARD}
    found = recovery.recover(
        scene.desk.journal, scene.desk.tools, groups, uuids, processes.boot_id()
    )
    for life in found.lives:
        scene.lives.add(life)
    was_parked = any(life.record.mark is Mark.PARKED for life in found.lives)
    scene.wakings = scene.agent()
    scene.wakings.go_on(found.lives)
    if not answered:
        assert scene.create()["ok"] == "restore"
    if not any(life.record.pid for life in found.lives):
        scene.held()
    if was_parked:
        assert (mark, when) == (Mark.PARKED, "after")
    else:
        scene.awake()
    assert scene.desk.on_disk() is Mark.PARKED
    slot = scene.desk.pool.slot(UID)
    assert {p.name: b"".join(slot.read(p.name)) for p in slot.parts()} == CONTENTS
    assert set(scene.candidates.held) == {"first"}


def died(ask, scene) -> bool:
    """Go on until the agent dies; whether the runtime had its answer before."""
    end = scene.wakings.stage.tools.journal
    answered = False

    def look():
        nonlocal answered
        if end.ended:
            return True
        if not answered:
            answered = ask().get("ok") == "restore"
            if answered:
                scene.held()
        return end.ended

    wait_for(look, "the agent dies")
    return answered


def dies_at(desk: Desk, point: str) -> Any:
    """A journal that ends the thread that writes, and all that write after it."""

    def end() -> None:
        journal.ended = True
        raise Died

    class Dying(BreakingJournal):
        ended = False

        def write(self, record):
            if self.ended:
                raise Died
            return super().write(record)

    journal = Dying(desk.journal, point, end)
    return journal
