"""
A checkpoint of a parked workload is whole or is not there, and the workload stays parked.

Real: journal, pool and store on a disk. Faked: the card, runc and CRIU.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import GpuUuid, NodeName
from kybernate.model.verdict import Reason
from kybernate.stores.ram import Ram
from kybernate.testing.builders import a_group
from nodeagent import images
from nodeagent.disk.journal import BreakingJournal
from nodeagent.disk.records import Mark, Record
from nodeagent.images import DumpFailed, Unfit, Unfitness
from nodeagent.linux import processes
from nodeagent.mechanisms import BodyGone, NotYet
from nodeagent.stories import demote, park, recovery, resume, seal, store
from nodeagent.stories.seal import Means
from nodeagent.stories.story import Undone

Desk = Any  # tests/nodeagent/conftest.py
NAME = "a-1"
NEVER = threading.Event()
CONTENTS = {"weights": b"w" * 4096, "cache": b"c" * 1024}
IN_THE_WAY = Unfit(pid=7, command="serve", reason=Unfitness.IO_URING)
MADE_IN = Fingerprint(
    kernel="6.1", architecture="x", boot="b", image="model:1", command=("serve",), mechanism="fake"
)


class Died(BaseException):
    """kill -9."""


def describe(record: Record, body: images.Body) -> Facts:
    return Facts(
        workload="a", pod="a", pod_uid=record.uid, container="model", node=NodeName("n"),
        sealed_at=1.0, made_in=MADE_IN,
    )  # fmt: skip


def means(desk: Desk, **more: Any) -> Means:
    parts = {"store": desk.store(), "images": desk.images, "describe": describe}
    return Means(**parts | more)


def is_as_before(desk: Desk) -> None:
    """Parked, still, its contents in the pool, and nothing of a draft left."""
    assert desk.on_disk() is Mark.PARKED
    assert desk.freezer.stands
    slot = desk.pool.slot("uid-a")
    assert {p.name: b"".join(slot.read(p.name)) for p in slot.parts()} == CONTENTS
    assert not list((desk.folder / "checkpoints" / "plain").iterdir())


def test_a_checkpoint_holds_image_and_contents_and_the_workload_is_parked_as_before(desk):
    story = desk.story(desk.parked())
    record, sealed = seal.seal(story, means(desk), NAME)
    assert record.mark is Mark.PARKED
    is_as_before(desk)
    found = desk.store().open("default", NAME)
    assert found.signature == sealed.signature
    facts = found.manifest.facts
    assert {p.name: b"".join(found.read(p.path)) for p in facts.parts} == CONTENTS
    assert [p.card for p in facts.parts] == [0, 0]
    assert facts.more["gpu"] == "weights,cache"
    assert b"".join(found.read("image/pages")) == b"p" * 100
    names = [phase.name for phase in story.watch.phases()]
    assert names == ["journal", "let go", "freeze", "dump", "contents", "sign", "unaccounted"]


def test_what_is_in_the_object_store_is_sealed_from_there(desk):
    lowered = demote.demote(desk.story(desk.parked()), NEVER)
    stored = store.store(desk.story(lowered), NEVER)
    record, _ = seal.seal(desk.story(stored), means(desk), NAME)
    assert (record.mark, record.stored) == (Mark.PARKED, True)
    found = desk.store().open("default", NAME)
    parts = found.manifest.facts.parts
    assert {p.name: b"".join(found.read(p.path)) for p in parts} == CONTENTS
    desk.use_depot(Ram(0, desk.clock.now))
    desk.use_cellar()
    with pytest.raises(Undone, match="object store"):
        seal.seal(desk.story(record), means(desk), "a-2")
    assert (desk.on_disk(), desk.now().stored) == (Mark.PARKED, True)


def test_a_workload_that_goes_on_is_sealed_at_the_cost_of_its_difference(desk):
    store, record = desk.store(), None
    for turn in range(3):
        desk.mechanism.vram["cache"] = bytes([turn + 1]) * 1024
        record = park.park(desk.story(record)) if record is not None else desk.parked()
        record, sealed = seal.seal(desk.story(record), means(desk, store=store), f"a-{turn}")
        facts = sealed.manifest.facts
        image = len(b"p" * 100)
        assert facts.written == facts.added + image, "the image was on the disk before"
        if turn:
            assert facts.added < 1024 + 200, "its cache; no weights, no image"
        else:
            assert facts.added > 4096 + 1024
        record = resume.resume(desk.story(record))
    for turn in (1, 0, 2):
        found = store.open("default", f"a-{turn}")
        there = {p.name: b"".join(found.read(p.path)) for p in found.manifest.facts.parts}
        assert there == {"weights": b"w" * 4096, "cache": bytes([turn + 1]) * 1024}


def test_what_is_known_to_have_rotted_is_not_shared_with(desk):
    store = desk.store()
    record, first = seal.seal(desk.story(desk.parked()), means(desk, store=store), "a-0")
    (pack,) = first.manifest.pack_keys
    content = bytearray((desk.folder / "checkpoints" / pack).read_bytes())
    content[len(content) // 2] ^= 1
    (desk.folder / "checkpoints" / pack).write_bytes(content)
    with pytest.raises(Unusable):
        store.open("default", "a-0")
    record = resume.resume(desk.story(record))
    parked = park.park(desk.story(record))
    _, sealed = seal.seal(desk.story(parked), means(desk, store=store), "a-1")
    assert sealed.manifest.facts.added == first.manifest.facts.added
    store.open("default", "a-1")


def unfit(desk: Desk) -> Means:
    desk.images.stands = [IN_THE_WAY]
    return means(desk)


def broken_dump(desk: Desk) -> Means:
    desk.images.breaks = [DumpFailed("CRIU said no")]
    return means(desk)


def small_store(desk: Desk) -> Means:
    return means(desk, store=desk.store(limit=1000))


def taken(desk: Desk) -> Means:
    made = means(desk)
    with made.store.draft("default", NAME) as draft:
        draft.write("x", [b"x"])
        draft.seal(describe(desk.record(uid="other"), None))
    desk.journal.forget("other")
    return made


def altered(desk: Desk) -> Means:
    (part,) = [
        p for p in (desk.folder / "pool" / "uid-a").glob("*.part") if p.stat().st_size > 2000
    ]
    part.write_bytes(b"x" * 4096)
    return means(desk)


def bound(desk: Desk) -> Means:
    desk.mechanism.fail["let_go"] = [NotYet("the driver is away")]
    return means(desk)


def unknown(desk: Desk) -> Means:
    (desk.folder / "runc" / "c1" / "state.json").unlink()
    return means(desk)


@pytest.mark.parametrize(
    ("spoil", "reason", "why"),
    [
        pytest.param(unfit, Reason.NOT_SEALABLE, r"serve \(7\): IoUring", id="unfit"),
        pytest.param(broken_dump, Reason.NOT_SEALABLE, "CRIU said no", id="dump"),
        pytest.param(small_store, Reason.NO_CHECKPOINT_ROOM, "bytes|room|left", id="no room"),
        pytest.param(taken, Reason.NAME_TAKEN, "a-1", id="name"),
        pytest.param(altered, Reason.NOT_SEALABLE, "changed in the pool", id="altered contents"),
        pytest.param(bound, Reason.NOT_SEALABLE, "driver is away", id="driver"),
        pytest.param(unknown, Reason.NOT_SEALABLE, "runc's state", id="no runc"),
    ],
)
def test_what_cannot_be_sealed_is_parked_as_before_and_says_why(desk, spoil, reason, why):
    story = desk.story(desk.parked())
    made = spoil(desk)
    with pytest.raises(Undone, match=why) as undone:
        seal.seal(story, made, NAME)
    assert undone.value.reason is reason
    if spoil is not altered:
        is_as_before(desk)
    assert desk.on_disk() is Mark.PARKED
    assert desk.freezer.stands


def test_a_workload_that_ends_meanwhile_leaves_no_draft(desk):
    record = desk.parked()
    story = desk.story(replace(record, pid_started=record.pid_started + 1))
    with pytest.raises(BodyGone):
        seal.seal(story, means(desk), NAME)
    with pytest.raises(Unusable):
        desk.store().open("default", NAME)


def test_what_stands_in_the_way_is_found_before_it_is_parked_but_for_the_drivers_own(desk):
    socket = Unfit(pid=7, command="serve", reason=Unfitness.OUTSIDE_SOCKET)
    desk.images.stands = [socket, IN_THE_WAY]
    body = seal.body_of(desk.parked())
    assert seal.obstacles(body, desk.images) == (IN_THE_WAY,)
    many = tuple(replace(IN_THE_WAY, pid=pid) for pid in range(5))
    assert seal.words(many).endswith("serve (2): IoUring; and 2 more")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("mark", [Mark.SEALING, Mark.SEALED, Mark.PARKED])
def test_an_agent_that_dies_on_the_way_leaves_a_checkpoint_or_nothing(desk, when, mark):
    record = desk.parked()
    story = desk.story(record)
    story.tools = replace(desk.tools, journal=dies_at(desk, f"{when}:{mark.value}"))
    with pytest.raises(Died):
        seal.seal(story, means(desk), NAME)

    store = desk.store()  # the next agent's
    group = a_group(0)
    found = recovery.recover(
        desk.journal, desk.tools, {group.name: group}, {0: GpuUuid("GPU-0")}, processes.boot_id()
    )
    (life,) = found.lives
    assert life.record.mark is Mark.PARKED
    is_as_before(desk)
    sealed = mark is not Mark.SEALING
    assert [one.manifest.name for one in store.all()] == ([NAME] if sealed else [])
    if sealed:
        assert store.open("default", NAME).size


def dies_at(desk: Desk, point: str) -> BreakingJournal:
    def end() -> None:
        raise Died

    died: Callable[[], None] = end
    return BreakingJournal(desk.journal, point, died)
