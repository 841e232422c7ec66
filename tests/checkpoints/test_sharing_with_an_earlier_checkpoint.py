"""The next checkpoint of a workload costs its difference, and each is whole by itself.

Real: packs, keys, signatures on a disk. Faked: whose contents they are.
"""

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw
from kybernate.testing.imagefiles import LAZY, PAGE, PRESENT, image
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store
from nodeagent.images import windows
from nodeagent.images.folders import CRIU

NAMESPACE = "default"
PIECE, COUNT = 4096, 64
WINDOW, HERE = windows.SMALLEST, LAZY | PRESENT
Seal = Callable[..., Sealed]


def contents(seed: int = 0) -> list[bytes]:
    """COUNT pieces of PIECE bytes."""
    chance = random.Random(seed)
    return [chance.randbytes(PIECE) for _ in range(COUNT)]


@pytest.fixture
def snapshot(facts: Callable[..., Any]) -> Seal:
    """`snapshot(store, name, pieces)`: of the workload as it is then."""

    def make(store: Store, name: str, pieces: list[bytes], **changes: Any) -> Sealed:
        said = facts(**changes)
        with store.draft(NAMESPACE, name, like=said) as draft:
            (draft.folder / "image").mkdir()
            (draft.folder / "image/pages-1.img").write_bytes(b"process" * 10_000)
            draft.write("gpu/0", pieces)
            return draft.seal(said)

    return make


def read(store: Store, name: str) -> bytes:
    return b"".join(store.open(NAMESPACE, name).read("gpu/0"))


def test_the_second_writes_what_differs_and_both_are_whole(store: Store, snapshot: Seal) -> None:
    pieces = contents()
    first = snapshot(store, "one", pieces)
    changed = [os.urandom(PIECE) if number in (3, 30) else one for number, one in enumerate(pieces)]
    second = snapshot(store, "two", changed)
    assert first.manifest.facts.added > COUNT * PIECE
    assert 2 * PIECE < second.manifest.facts.added < 2 * PIECE + 300  # no byte of its image
    assert read(store, "one") == b"".join(pieces)
    assert read(store, "two") == b"".join(changed)
    assert store.room().used < first.manifest.packed + 3 * PIECE + 40_000  # manifests, too


def test_what_stands_elsewhere_now_is_found_all_the_same(store: Store, snapshot: Seal) -> None:
    pieces = contents()
    snapshot(store, "one", [b"a head of another length", *pieces])
    moved = [b"head", *pieces[10:], *pieces[:10]]
    second = snapshot(store, "two", moved)
    assert second.manifest.facts.added < 400
    assert read(store, "two") == b"".join(moved)


def test_memory_that_grew_is_found_by_its_addresses(
    store: Store, facts: Callable[..., Any]
) -> None:
    """One page more at the beginning of a process shifts its file of pages, and nothing else."""
    chance, told = random.Random(3), {}
    low, high = chance.randbytes(WINDOW), chance.randbytes(8 * WINDOW)
    for name, some in (("one", low[: 4 * PAGE]), ("two", low[: 5 * PAGE])):
        with store.draft(NAMESPACE, name, like=facts()) as draft:
            draft.write("gpu/0", [b"gpu"])
            (draft.folder / CRIU).mkdir()
            image(draft.folder / CRIU, (0, some, HERE), (64 * WINDOW, high, HERE))
            told[name] = draft.seal(facts(), windows.cuts(draft.folder))
    assert told["one"].manifest.facts.added > 8 * WINDOW
    assert told["two"].manifest.facts.added < 6 * PAGE
    found = store.open(NAMESPACE, "two").read(f"{CRIU}/pages-1.img")
    assert b"".join(found) == low[: 5 * PAGE] + high


def test_any_of_many_is_read_after_all_others_are_gone(store: Store, snapshot: Seal) -> None:
    chance, pieces, told = random.Random(5), contents(), {}
    for number in range(12):
        for _ in range(3):
            pieces[chance.randrange(COUNT)] = chance.randbytes(PIECE)
        told[f"s{number}"] = b"".join(pieces)
        snapshot(store, f"s{number}", pieces)
    names = list(told)
    chance.shuffle(names)
    while names:
        for name in names:
            assert read(store, name) == told[name]
        assert store.delete(NAMESPACE, names.pop())
    assert store.room().used == 0


def test_where_everything_changes_nothing_is_shared(store: Store, snapshot: Seal) -> None:
    snapshot(store, "one", contents(1))
    assert snapshot(store, "two", contents(2)).manifest.facts.added > COUNT * PIECE


def test_the_same_bytes_twice_are_kept_once(store: Store, snapshot: Seal) -> None:
    one = snapshot(store, "one", [contents()[0]] * COUNT)
    assert one.manifest.facts.added < 2 * PIECE + 80_000
    assert read(store, "one") == contents()[0] * COUNT


def test_what_is_of_another_domain_is_not_shared_with(store: Store, snapshot: Seal) -> None:
    snapshot(store, "one", contents())
    gold = snapshot(store, "gold", contents(), gold=True)
    assert gold.manifest.domain == "gold.default.gold"
    assert gold.manifest.facts.added > COUNT * PIECE
    replica = snapshot(store, "replica", contents(), more={"woken_from": "gold"})
    assert replica.manifest.domain == gold.manifest.domain
    assert replica.manifest.facts.added < 300


def test_a_deletion_takes_nothing_from_who_shares_with_it_meanwhile(
    store: Store, snapshot: Seal, facts: Callable[..., Any]
) -> None:
    pieces = contents()
    snapshot(store, "one", pieces)
    with store.draft(NAMESPACE, "two") as draft:
        draft.write("gpu/0", pieces)  # it has found them now
        assert store.delete(NAMESPACE, "one")
        draft.seal(facts())
    assert read(store, "two") == b"".join(pieces)
    assert store.delete(NAMESPACE, "two")
    assert store.room().used == 0


def test_a_flipped_bit_in_what_two_share_is_told_of_both_and_shared_no_more(
    store: Store, snapshot: Seal, rot: Callable[..., None]
) -> None:
    first = snapshot(store, "one", contents())
    snapshot(store, "two", contents())
    rot(first)
    for name in ("one", "two"):
        with pytest.raises(Unusable) as caught:
            store.open(NAMESPACE, name)
        assert caught.value.reason is Flaw.PACK_ALTERED
        with pytest.raises(Unusable):
            store.believed(NAMESPACE, name)  # known now, before anything is read
    third = snapshot(store, "three", contents())
    assert third.manifest.facts.added == first.manifest.facts.added
    assert read(store, "three") == b"".join(contents())


def test_a_copy_that_came_is_shared_with_and_what_is_shared_does_not_come(
    nodes: Callable[[str], Any], snapshot: Seal
) -> None:
    here, there = nodes("node-a"), nodes("node-b")
    pieces = contents()
    snapshot(here.store, "one", pieces)
    there.peers.fetch(Wanted(namespace=NAMESPACE, name="one"), "node-a")
    second = snapshot(there.store, "two", [*pieces[:-1], b"x" * PIECE])
    assert second.manifest.facts.added < 2 * PIECE  # all nodes have one key for a domain
    told: list[Any] = []
    here.peers.fetch(Wanted(namespace=NAMESPACE, name="two"), "node-b", told.append)
    assert read(here.store, "two") == b"".join([*pieces[:-1], b"x" * PIECE])
    assert here.store.room() == there.store.room()
