"""A checkpoint is there whole or not at all, and what does not fit leaves nothing."""

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints import plainly
from nodeagent.checkpoints.faults import AlreadySealed, NoRoom, NotSealed
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
MIB = 2**20
Left = Callable[[Path], list[str]]


def test_what_was_sealed_is_read_back(
    store: Store, seal: Callable[..., Sealed], here: Any, tmp_path: Path
) -> None:
    sealed = seal(store)
    opened = store.open(NAMESPACE, NAME, here, sealed.signature)
    assert opened == sealed
    assert b"".join(opened.read("gpu/0")) == b"contents of the card" * 1000
    (tmp_path / "out").mkdir()
    opened.take_out("image", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "pages-1.img": bytes(range(256)) * 4096,
        "inventory.img": b"inventory",
        "empty.img": b"",
    }
    assert [one.manifest.name for one in store.all()] == [NAME]
    assert (opened.checkpoint.workload, opened.checkpoint.size) == (
        "statefulset.llama.0",
        sealed.size,
    )


def test_a_draft_is_seen_by_nobody(store: Store) -> None:
    with store.draft(NAMESPACE, NAME) as draft:
        draft.write("gpu/0", [b"x"])
        assert store.all() == ()
        with pytest.raises(Unusable) as caught:
            store.peek(NAMESPACE, NAME)
        assert caught.value.reason is Flaw.ABSENT
    assert store.room().used == 0


def test_an_agent_that_died_while_sealing_left_nothing(
    new_store: Callable[..., Store], left: Left, tmp_path: Path
) -> None:
    new_store().draft(NAMESPACE, NAME).write("gpu/0", [b"x"])
    again = new_store()
    assert (again.all(), again.room().used) == ((), 0)
    assert left(tmp_path / "node-a") == []


def test_an_agent_that_starts_knows_what_there_is(
    new_store: Callable[..., Store], seal: Callable[..., Sealed]
) -> None:
    before = new_store()
    seal(before)
    after = new_store()
    assert after.room() == before.room()
    after.open(NAMESPACE, NAME)


def test_a_draft_left_by_its_maker_is_gone(store: Store, left: Left, tmp_path: Path) -> None:
    with store.draft(NAMESPACE, NAME) as draft:
        (draft.folder / "image").write_bytes(b"x")
    assert left(tmp_path / "node-a") == []


def test_a_name_is_sealed_once(store: Store, seal: Callable[..., Sealed]) -> None:
    sealed = seal(store)
    with pytest.raises(AlreadySealed):
        store.draft(NAMESPACE, NAME)
    assert store.open(NAMESPACE, NAME) == sealed


def test_of_two_that_seal_one_name_at_once_one_wins(
    store: Store, facts: Any, left: Left, tmp_path: Path
) -> None:
    drafts = [store.draft(NAMESPACE, NAME) for _ in range(4)]
    gate, ended = threading.Barrier(len(drafts)), []

    def make(number: int) -> None:
        drafts[number].write("gpu/0", [b"%d" % number])
        gate.wait(60)
        try:
            ended.append(drafts[number].seal(facts()))
        except AlreadySealed:
            ended.append(None)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(len(drafts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (winner,) = [one for one in ended if one]
    assert store.open(NAMESPACE, NAME).signature == winner.signature
    assert len(left(tmp_path / "node-a")) == 2  # a pack and the manifest
    assert store.room().used < 10_000


def test_empty_folders_are_no_part_of_it(store: Store, facts: Any) -> None:
    with store.draft(NAMESPACE, NAME) as draft:
        (draft.folder / "work/empty").mkdir(parents=True)
        draft.write("gpu/0", [b"x"])
        draft.seal(facts())
    assert [file.path for file in store.open(NAMESPACE, NAME).manifest.files] == ["gpu/0"]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda f: (f / "x").symlink_to("/etc/passwd"), id="a-link"),
        pytest.param(lambda f: os.mkfifo(f / "x"), id="a-pipe"),
        pytest.param(lambda f: (f / "a b").write_bytes(b""), id="a-bad-name"),
    ],
)
def test_what_would_be_refused_is_not_sealed(
    store: Store, facts: Any, left: Left, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    draft = store.draft(NAMESPACE, NAME)
    draft.write("gpu/0", [b"x"])
    spoil(draft.folder)
    with pytest.raises(NotSealed):
        draft.seal(facts())
    assert left(tmp_path / "node-a") == []
    assert store.room().used == 0


def test_nothing_at_all_is_not_sealed(store: Store, facts: Any) -> None:
    with pytest.raises(NotSealed, match="nothing in it"):
        store.draft(NAMESPACE, NAME).seal(facts(parts=()))


def test_gpu_contents_that_were_not_copied_are_noticed_when_it_is_sealed(
    store: Store, facts: Any
) -> None:
    draft = store.draft(NAMESPACE, NAME)
    draft.write("elsewhere", [b"x"])
    with pytest.raises(NotSealed, match="in no file"):
        draft.seal(facts())


def test_room_is_asked_for_before_anything_is_written(
    new_store: Callable[..., Store], left: Left, tmp_path: Path
) -> None:
    store = new_store(limit=10 * MIB)
    held = store.draft(NAMESPACE, "first", need=6 * MIB)
    with pytest.raises(NoRoom, match="left of the limit"):
        store.draft(NAMESPACE, NAME, need=6 * MIB)
    held.discard()
    store.draft(NAMESPACE, NAME, need=6 * MIB).discard()
    full = new_store("node-b", limit=10 * MIB, free=lambda _: 5 * MIB, spare=2 * MIB)
    with pytest.raises(NoRoom, match="left on the disk"):
        full.draft(NAMESPACE, NAME, need=4 * MIB)
    assert left(tmp_path / "node-b") == []


def test_room_is_looked_at_while_writing(
    new_store: Callable[..., Store], left: Left, tmp_path: Path
) -> None:
    store = new_store(limit=70 * MIB)
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield os.urandom(8 * MIB)

    draft = store.draft(NAMESPACE, NAME, need=MIB)
    with pytest.raises(NoRoom):
        draft.write("gpu/0", endless())
    assert len(taken) < 50
    assert left(tmp_path / "node-a") == []
    assert store.room().used == 0


def test_more_than_was_asked_for_is_noticed_when_it_is_sealed(
    new_store: Callable[..., Store], facts: Any, left: Left, tmp_path: Path
) -> None:
    store = new_store(limit=2 * MIB)
    draft = store.draft(NAMESPACE, NAME, need=MIB)
    draft.write("gpu/0", [b"x"])
    (draft.folder / "pages").write_bytes(os.urandom(3 * MIB))
    with pytest.raises(NoRoom):
        draft.seal(facts())
    assert left(tmp_path / "node-a") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "node-s"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    small_disk: Path, new_store: Callable[..., Store], seal: Any, left: Left, facts: Any
) -> None:
    store = new_store("node-s", free=lambda _: 1 << 40)  # the figures lie: others write too
    seal(store, "before")
    kept = left(small_disk)
    draft = store.draft(NAMESPACE, NAME)
    draft.write("gpu/0", [os.urandom(MIB) for _ in range(8)])  # a pack is put once it is full
    with pytest.raises(NoRoom, match="disk is full"):
        draft.seal(facts())
    assert left(small_disk) == kept
    store.open(NAMESPACE, "before")
    assert len(store.all()) == 1


def test_a_disk_that_fails_leaves_nothing(
    store: Store, facts: Any, left: Left, tmp_path: Path
) -> None:
    def failing() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.EIO, "broken")

    draft = store.draft(NAMESPACE, NAME)
    with pytest.raises(NotSealed, match="broken"):
        draft.write("gpu/0", failing())
    assert left(tmp_path / "node-a") == []


def test_a_deleted_one_is_gone_at_once_and_its_room_free(
    store: Store, seal: Callable[..., Sealed], left: Left, tmp_path: Path
) -> None:
    seal(store)
    assert store.delete(NAMESPACE, NAME)
    assert not store.delete(NAMESPACE, NAME)
    assert (store.all(), store.room().used, left(tmp_path / "node-a")) == ((), 0, [])
    seal(store)


def test_one_that_is_being_used_is_deleted_afterwards(
    store: Store, seal: Callable[..., Sealed]
) -> None:
    sealed = seal(store)
    with store.using(NAMESPACE, NAME):
        store.delete(NAMESPACE, NAME)
        assert b"".join(sealed.read("image/inventory.img")) == b"inventory"
    with pytest.raises(Unusable):
        list(sealed.read("image/inventory.img"))
    assert store.all() == ()


def test_damaged_ones_are_counted_and_left_out(
    new_store: Callable[..., Store], seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    before = new_store()
    sealed = seal(before)
    manifest = tmp_path / "node-a/manifests" / NAMESPACE / NAME
    manifest.write_bytes(manifest.read_bytes().replace(sealed.signature[-8:].encode(), b"A" * 8))
    store = new_store()
    assert store.all() == ()
    assert store.room() == before.room()  # a key that is trusted again may open it
    assert store.delete(NAMESPACE, NAME)
    assert store.room().used == 0


def test_nobody_else_may_read_them(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    seal(store)
    assert (tmp_path / "node-a").stat().st_mode & 0o077 == 0


def test_nothing_of_what_was_sealed_lies_on_the_disk_in_clear(
    store: Store, seal: Callable[..., Sealed], tmp_path: Path
) -> None:
    seal(store)
    for path in (tmp_path / "node-a").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"contents of the card" not in content
            assert b"tartar" not in content
            assert bytes(range(256)) not in content


def test_what_is_not_sealed_lies_in_memory_where_that_has_room(
    new_store: Callable[..., Store], facts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    store = new_store(memory=memory)
    with store.draft(NAMESPACE, "first") as draft:
        assert draft.folder.is_relative_to(memory)
        (draft.folder / "image").write_bytes(os.urandom(MIB))
        draft.write("gpu/0", [b"x"])
        sealed = draft.seal(facts())
        assert sealed.manifest.facts.written == sealed.manifest.facts.added
    assert list(memory.iterdir()) == []
    monkeypatch.setattr(plainly, "SPARE", 2**60)
    with store.draft(NAMESPACE, "second") as draft:
        assert draft.folder.is_relative_to(tmp_path / "node-a")


def test_what_two_have_is_there_once_and_counted_once(
    store: Store, facts: Any, left: Left, tmp_path: Path
) -> None:
    content = [os.urandom(2 * MIB) for _ in range(8)]

    def seal(name: str, pages: list[bytes]) -> Sealed:
        with store.draft(NAMESPACE, name) as draft:
            (draft.folder / "image").mkdir()
            (draft.folder / "image/pages-1.img").write_bytes(pages[0])
            draft.write("gpu/0", [b"head of %s" % name.encode(), *pages[1:]])
            return draft.seal(facts())

    first = seal("first", content)
    used = store.room().used
    changed = [*content[:3], os.urandom(2 * MIB), *content[4:]]
    second = seal("second", changed)
    added = second.manifest.facts.added
    assert 2 * MIB < added < 2.1 * MIB  # also process memory is cut and found again
    assert store.room().used - used < 2.2 * MIB
    assert store.freed_by_deleting(NAMESPACE, "second") == added
    assert store.freed_by_deleting(NAMESPACE, "first") == 0  # all its chunks are in packs of both
    assert store.delete(NAMESPACE, "first")
    again = store.open(NAMESPACE, "second")
    assert b"".join(again.read("gpu/0")) == b"head of second" + b"".join(changed[1:])
    assert store.delete(NAMESPACE, "second")
    assert (store.room().used, left(tmp_path / "node-a")) == (0, [])
    assert first.size != 0
