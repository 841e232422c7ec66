"""The next checkpoint of a workload costs its difference, and each is whole by itself.

Real: files, links, digests, signatures on a disk. Faked: whose contents they are.
"""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from kybernate.artifacts import layers as lists
from kybernate.artifacts import v0
from kybernate.artifacts.facts import GpuPart
from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw
from kybernate.stores.nvme import Nvme
from nodeagent.checkpoints import layers
from nodeagent.checkpoints.layers import Spoilt
from nodeagent.checkpoints.peers import Wanted
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

NAMESPACE, WORKLOAD = "default", "statefulset.llama.0"
PIECE = 4096
COUNT = 64
IMAGE = b"process memory" * 1000
ROOTFS = b"what the container wrote" * 1000


def contents(seed: int = 0) -> list[bytes]:
    made = random.Random(seed)
    return [made.randbytes(PIECE) for _ in range(COUNT)]


def changed(before: list[bytes], some: Any, seed: int) -> list[bytes]:
    made = random.Random(seed)
    return [made.randbytes(PIECE) if n in some else one for n, one in enumerate(before)]


Seal = Callable[..., Sealed]


@pytest.fixture
def snapshot(facts: Any) -> Seal:
    """As the story of sealing does it."""

    def make(
        store: Store, name: str, at: float, *parts: list[bytes], image: bytes = IMAGE
    ) -> Sealed:
        with store.earlier(NAMESPACE, WORKLOAD) as found, store.draft(NAMESPACE, name) as draft:
            before = layers.earlier(found) if found is not None else None
            (draft.folder / "image").mkdir()
            (draft.folder / "image/pages").write_bytes(image)
            (draft.folder / "image/rootfs.tar").write_bytes(ROOTFS)

            def streams() -> Iterator[tuple[str, Iterator[bytes]]]:
                for number, pieces in enumerate(parts):
                    yield f"gpu/{number}", iter(pieces)

            try:
                digests = layers.write(draft, "gpu", streams(), before)
            except Spoilt:
                assert found is not None
                store.spoilt(found)
                raise
            linked = draft.shared
            if found is not None:
                draft.share_equals(found.folder, found.manifest.files)
            placed = tuple(
                GpuPart(name=path, card=0, size=PIECE * COUNT, digest=told, path=path, layered=True)
                for path, told in digests.items()
            )
            return draft.seal(facts(parts=placed, sealed_at=at), linked)

    return make


def read(store: Store, name: str) -> list[bytes]:
    """Verified, as a wake does it."""
    sealed = store.open(NAMESPACE, name)
    return [b"".join(layers.read(sealed, part)) for part in sealed.manifest.facts.parts]


def on_disk(folder: Path) -> int:
    """Bytes of all files, each inode once."""
    seen = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(seen.values())


def test_the_second_writes_what_differs_and_both_are_whole(
    store: Store, snapshot: Seal, tmp_path: Path
) -> None:
    first, second = contents(), changed(contents(), {3, 4, 5}, 1)
    one = snapshot(store, "one", 1.0, first, contents(9))
    before = on_disk(tmp_path)
    two = snapshot(store, "two", 2.0, second, contents(9), image=IMAGE[:-1] + b"!")
    assert read(store, "one") == [b"".join(first), b"".join(contents(9))]
    assert read(store, "two") == [b"".join(second), b"".join(contents(9))]
    facts = two.manifest.facts
    added = on_disk(tmp_path) - before
    lists_of = {f.path: f.size for f in two.manifest.files if f.path in ("gpu/0", "gpu/1")}
    assert facts.added == 3 * PIECE + len(IMAGE) + lists_of["gpu/0"]
    assert facts.written == facts.added + len(ROOTFS) + lists_of["gpu/1"], "it was there already"
    assert added < facts.added + 8192, "but for manifest and signature"
    assert one.manifest.facts.added == one.manifest.size
    assert version_of(two) == v0.LAYERED


def version_of(sealed: Sealed) -> int:
    return int(sealed.content.rpartition(b'"version": ')[2].split(b"\n")[0])


def test_what_is_counted_is_what_the_disk_has(
    store: Store, new_store: Callable[..., Store], snapshot: Seal, tmp_path: Path
) -> None:
    for n in range(3):
        snapshot(store, f"s{n}", float(n), changed(contents(), {n}, n))
        assert store.room().used == on_disk(tmp_path / "node-a" / "sealed")
    assert new_store().room() == store.room()
    freed, before = store.freed_by_deleting(NAMESPACE, "s0"), on_disk(tmp_path)
    store.delete(NAMESPACE, "s0")
    manifest_and_signature = 8192
    assert 0 <= before - on_disk(tmp_path) - freed < manifest_and_signature
    assert store.room().used == on_disk(tmp_path / "node-a" / "sealed")
    store.delete(NAMESPACE, "s2")
    store.delete(NAMESPACE, "s1")
    assert store.room().used == 0


def test_any_of_many_is_read_after_all_others_are_gone(store: Store, snapshot: Seal) -> None:
    made, told = contents(), []
    for n in range(8):
        made = changed(made, {n, 2 * n + 9}, n)
        told.append(b"".join(made))
        snapshot(store, f"s{n}", float(n), made)
    for n in (6, 1, 3):
        assert read(store, f"s{n}") == [told[n]]
    for n in range(8):
        if n != 3:
            store.delete(NAMESPACE, f"s{n}")
    assert read(store, "s3") == [told[3]]


def test_files_of_a_checkpoint_are_few_and_at_most_twice_its_contents(
    store: Store, snapshot: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "MOST", 6)
    made, pick = contents(), random.Random(5)
    for n in range(30):
        made = changed(made, {pick.randrange(COUNT) for _ in range(3)}, n)
        sealed = snapshot(store, f"s{n}", float(n), made)
        assert read(store, f"s{n}") == [b"".join(made)]
        found = [f.size for f in sealed.manifest.files if "/layer-" in f.path]
        assert len(found) <= 6
        assert sum(found) <= 2 * PIECE * COUNT
        if n > 2:
            store.delete(NAMESPACE, f"s{n - 2}")


def test_where_everything_changes_nothing_is_linked(store: Store, snapshot: Seal) -> None:
    snapshot(store, "one", 1.0, contents(1))
    two = snapshot(store, "two", 2.0, contents(2))
    assert len([f for f in two.manifest.files if "/layer-" in f.path]) == 1
    assert two.manifest.facts.added > PIECE * COUNT


def test_the_same_bytes_twice_are_kept_once(store: Store, snapshot: Seal) -> None:
    zeros = [bytes(PIECE)] * COUNT
    sealed = snapshot(store, "one", 1.0, zeros, zeros)
    assert [f.size for f in sealed.manifest.files if "/layer-" in f.path] == [PIECE]
    assert read(store, "one") == [bytes(PIECE * COUNT)] * 2


def test_another_workloads_checkpoint_is_not_shared_with(
    store: Store, snapshot: Seal, seal: Seal
) -> None:
    seal(store, name="others", workload="statefulset.other.0")
    with store.earlier(NAMESPACE, WORKLOAD) as found:
        assert found is None
    snapshot(store, "mine", 1.0, contents())
    with store.earlier("elsewhere", WORKLOAD) as found:
        assert found is None


def test_one_from_before_layers_is_no_hindrance(store: Store, snapshot: Seal, seal: Seal) -> None:
    seal(store, name="old")
    two = snapshot(store, "new", 2e9, contents())
    assert read(store, "new") == [b"".join(contents())]
    assert two.manifest.facts.added == two.manifest.size


def test_a_deletion_waits_while_somebody_shares_with_it(store: Store, snapshot: Seal) -> None:
    snapshot(store, "one", 1.0, contents())
    with store.earlier(NAMESPACE, WORKLOAD) as found:
        assert found is not None
        assert store.delete(NAMESPACE, "one")
        assert found.folder.exists()
    assert not found.folder.exists()


def test_an_earlier_one_that_rotted_is_found_where_it_is_copied_and_not_used_again(
    store: Store, snapshot: Seal
) -> None:
    first = contents()
    one = snapshot(store, "one", 1.0, first)
    layer = next(f.path for f in one.manifest.files if "/layer-" in f.path)
    at = (COUNT - 1) * PIECE + 1  # in the one piece that is still needed
    with (one.folder / layer).open("r+b") as file:
        file.seek(at)
        file.write(b"?" if first[-1][1:2] != b"?" else b"!")
    second = changed(first, set(range(COUNT - 1)), 7)
    with pytest.raises(Spoilt, match="of the earlier one"):
        snapshot(store, "two", 2.0, second)
    three = snapshot(store, "three", 3.0, second)
    assert read(store, "three") == [b"".join(second)]
    assert three.manifest.facts.added == three.manifest.size


def test_a_flipped_bit_in_what_two_share_is_told_of_both(store: Store, snapshot: Seal) -> None:
    one = snapshot(store, "one", 1.0, contents())
    snapshot(store, "two", 2.0, changed(contents(), {1}, 1))
    layer = next(f.path for f in one.manifest.files if "/layer-" in f.path)
    with (one.folder / layer).open("r+b") as file:
        file.seek(PIECE * 5)
        file.write(b"wrong")
    for name in ("one", "two"):
        with pytest.raises(Unusable) as caught:
            store.open(NAMESPACE, name)
        assert caught.value.reason is Flaw.FILE_ALTERED


def test_sealing_changes_nothing_of_what_was_sealed(store: Store, snapshot: Seal) -> None:
    one = snapshot(store, "one", 1.0, contents())
    stamps = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files_of(one)}
    snapshot(store, "two", 2.0, changed(contents(), {1, 2}, 1))
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files_of(one)} == stamps
    store.delete(NAMESPACE, "two")
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files_of(one)} == stamps


def files_of(sealed: Sealed) -> list[Path]:
    return [path for path in sealed.folder.rglob("*") if path.is_file()]


def test_where_no_more_links_are_to_be_had_it_is_copied(
    store: Store, snapshot: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(store, "one", 1.0, contents())

    def link(*_: Any, **__: Any) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(os, "link", link)
    second = changed(contents(), {1}, 1)
    two = snapshot(store, "two", 2.0, second)
    assert read(store, "two") == [b"".join(second)]
    assert two.manifest.facts.added == two.manifest.size


class TestElsewhere:
    """With a store that is a folder, beside the nodes."""

    @pytest.fixture
    def bucket(self, tmp_path: Path) -> Nvme:
        return Nvme(tmp_path / "bucket")

    def test_other_nodes_have_each_whole_from_its_node_or_from_the_store(
        self, nodes: Callable[[str], Any], snapshot: Seal
    ) -> None:
        here, there = nodes("node-a"), nodes("node-b")
        made, puts, told = contents(), [], {}
        for n in range(3):
            made = changed(made, {n, n + 9}, n)
            sealed = snapshot(here.store, f"s{n}", float(n), made)
            told[f"s{n}"] = [b"".join(made)]
            puts.append(here.objects.demote(of(sealed)).written)
        assert puts[1] < 0.3 * puts[0] > puts[2], "the store has what they share"
        for name in ("s0", "s1"):
            here.store.delete(NAMESPACE, name)
        second = there.objects.fetch(Wanted(namespace=NAMESPACE, name="s1"))
        third = there.peers.fetch(Wanted(namespace=NAMESPACE, name="s2"), "node-a")
        for sealed in (second, third):
            name = sealed.manifest.name
            assert read(there.store, name) == told[name]
        assert third.manifest == here.store.peek(NAMESPACE, "s2").manifest


def of(sealed: Sealed) -> Wanted:
    name = sealed.manifest.name
    return Wanted(namespace=NAMESPACE, name=name, signature=sealed.signature)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: {**whole, "version": 2},
        lambda whole: {**whole, "format": "tar"},
        lambda whole: {**whole, "pieces": [[0, PIECE * COUNT, PIECE, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, -1, PIECE, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, 0, 2**63, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, 0, 0, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[7, 0, PIECE, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, 0, PIECE, "00"]]},
        lambda whole: {**whole, "pieces": [[0, 0, PIECE, "zz" * 32]]},
        lambda whole: {**whole, "pieces": 7},
        lambda whole: {**whole, "layers": ["../../etc/shadow"], "pieces": whole["pieces"]},
        lambda whole: {**whole, "layers": [7]},
        lambda whole: {"format": whole["format"]},
    ],
)
def test_a_list_that_says_what_cannot_be_is_refused(spoil: Callable[..., Any]) -> None:
    good = lists.encode([lists.Piece("gpu/layer-a", 0, PIECE, bytes(32))])
    sizes = {"gpu/layer-a": PIECE * COUNT}
    assert lists.decode(good, sizes)
    with pytest.raises(Unusable):
        lists.decode(orjson.dumps(spoil(orjson.loads(good))), sizes)


def test_layers_and_version_go_together(store: Store, snapshot: Seal) -> None:
    sealed = snapshot(store, "one", 1.0, contents())
    old = sealed.content.replace(b'"version": 2', b'"version": 0')
    with pytest.raises(Unusable) as caught:
        v0.decode(old)
    assert caught.value.reason is Flaw.VERSION
    plain = replace(
        sealed.manifest,
        facts=replace(sealed.manifest.facts, parts=()),
    )
    assert b'"version": 0' in v0.encode(plain)
