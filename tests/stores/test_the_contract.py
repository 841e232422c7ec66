"""What every store promises: `kybernate/stores/port.py`, one test for each sentence."""

import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kybernate.runtime.clock import SystemClock
from kybernate.stores.errors import Absent, BadKey
from kybernate.stores.port import Store

SIZES = [0, 1, 4095, 4096, 4097, 300_000, 4 * 2**20, 9 * 2**20 + 5]


@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_comes_back(store: Store, size: int) -> None:
    content = os.urandom(size)
    store.put("a/b", content)
    assert bytes(store.get("a/b")) == content
    assert store.stat("a/b").size == size


def test_memory_of_every_kind_is_taken(store: Store) -> None:
    aligned = mmap.mmap(-1, 2**20)
    aligned.write(os.urandom(2**20))
    for number, view in enumerate(
        (bytearray(b"abc"), memoryview(b"abc"), memoryview(aligned), memoryview(aligned)[1:-7])
    ):
        store.put(f"kind/{number}", view)
        assert bytes(store.get(f"kind/{number}")) == bytes(view)


def test_the_content_may_change_afterwards(store: Store) -> None:
    content = bytearray(b"before")
    store.put("a", content)
    content[:] = b"after!"
    assert bytes(store.get("a")) == b"before"


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 10), (1, 1), (4095, 2), (4096, 4096), (8191, None), (9999, 1), (9990, 100), (10_000, 5),
     (20_000, 5), (0, 0), (5, 0), (0, None)],
)  # fmt: skip
def test_a_piece_comes_as_far_as_there_is_one(store: Store, offset: int, size: int | None) -> None:
    content = os.urandom(10_000)
    store.put("a", content)
    end = None if size is None else offset + size
    assert bytes(store.get("a", offset, size)) == content[offset:end]


def test_it_may_be_put_where_one_likes(store: Store) -> None:
    content = os.urandom(100_000)
    store.put("a", content)
    for room in (memoryview(mmap.mmap(-1, 2**20)), memoryview(bytearray(100_000))):
        assert bytes(store.get("a", into=room)) == content
    assert bytes(store.get("a", into=memoryview(bytearray(10)))) == content  # too small: elsewhere
    assert bytes(store.get("a", 5, 10, into=memoryview(bytearray(100)))) == content[5:15]


def test_what_is_put_again_replaces(store: Store) -> None:
    store.put("a", b"a long one, first")
    store.put("a", b"short")
    assert bytes(store.get("a")) == b"short"
    assert [one.size for one in store.list()] == [5]


def test_what_is_absent_is_told(store: Store) -> None:
    for ask in (store.get, store.stat):
        with pytest.raises(Absent):
            ask("not/there")
    with pytest.raises(Absent):
        store.get("not/there", 5, 10)
    store.put("a/b", b"x")
    with pytest.raises(Absent):
        store.get("a")  # a folder, where the store has folders


def test_what_is_deleted_is_gone_and_twice_is_fine(store: Store) -> None:
    store.put("a/b", b"x")
    assert store.delete("a/b")
    with pytest.raises(Absent):
        store.get("a/b")
    assert not store.delete("a/b")
    assert not store.delete("never/there")
    assert list(store.list()) == []


def test_a_listing_is_of_whole_parts(store: Store) -> None:
    keys = {"a/b/c", "a/b/d", "a/bb", "ab", "b"}
    for key in keys:
        store.put(key, key.encode())
    assert {one.key for one in store.list()} == keys
    assert {one.key for one in store.list("a")} == {"a/b/c", "a/b/d", "a/bb"}
    assert {one.key for one in store.list("a/b/")} == {"a/b/c", "a/b/d"}
    assert {one.key for one in store.list("a/bb")} == set()
    assert list(store.list("nothing")) == []


def test_a_listing_of_many(store: Store) -> None:
    keys = {f"many/{number:04d}" for number in range(1200)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: store.put(key, b"x"), keys))
    assert {one.key for one in store.list("many")} == keys


def test_when_it_was_put_is_known(store: Store) -> None:
    clock = SystemClock()
    before = clock.now()
    store.put("a", b"x")
    put_at = store.stat("a").put_at
    assert before - 2 <= put_at <= clock.now() + 2
    assert next(iter(store.list())).put_at == pytest.approx(put_at, abs=1)


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.", ".a", "A", "a b", "a\0", "ä", "a\n",
     "x" * 300, "a/" * 8 + "a", "-a", "a/" + "x" * 256],
)  # fmt: skip
def test_what_is_no_key_is_refused(store: Store, key: str) -> None:
    for ask in (store.get, store.stat, store.delete, lambda key: store.put(key, b"x")):
        with pytest.raises(BadKey):
            ask(key)
    assert list(store.list()) == []


def test_many_threads_see_whole_objects(store: Store) -> None:
    """Writers replace one object; a reader sees one of theirs, never a mixture."""
    contents = [bytes([number]) * 300_000 for number in range(4)]
    store.put("a", contents[0])
    over, wrong = threading.Event(), []

    def look() -> None:
        while not over.is_set():
            found = bytes(store.get("a"))
            if found not in contents:
                wrong.append(len(found))

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: store.put("a", contents[number % 4]), range(24)))
    over.set()
    for thread in looking:
        thread.join()
    assert not wrong
