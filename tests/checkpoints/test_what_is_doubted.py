"""A damaged checkpoint takes nothing along that is good, and nothing new is made of it.

Real: packs, keys, signatures on a disk. Faked: whose contents they are; a disk that cannot be read.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts import names
from kybernate.artifacts.faults import Unusable
from kybernate.clients.errors import Refused
from kybernate.ladder.keyring import KeyRing
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.clock import SystemClock
from kybernate.stores.errors import Faulty
from kybernate.stores.nvme import Nvme
from kybernate.stores.ram import Ram
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

NAMESPACE = "default"
OLD, NEW = b"o" * 32, b"n" * 32
Make = Callable[..., Sealed]


@pytest.fixture
def made(facts: Callable[..., Any]) -> Make:
    """`made(store, name, pieces)`: a checkpoint of these."""

    def make(store: Store, name: str, pieces: list[bytes]) -> Sealed:
        with store.draft(NAMESPACE, name, like=facts()) as draft:
            draft.write("gpu/0", pieces)
            return draft.seal(facts())

    return make


@pytest.fixture
def two(store: Store, made: Make) -> tuple[Sealed, Sealed]:
    """The second has all of the first's, and a piece of its own, which rots."""
    shared = [os.urandom(4096) for _ in range(20)]
    first, second = made(store, "one", shared), made(store, "two", [*shared, os.urandom(4096)])
    (own,) = set(second.manifest.pack_keys) - set(first.manifest.pack_keys)
    path = store.space._folder / own
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    return first, second


def is_damaged(store: Store, sealed: Sealed) -> bool:
    try:
        b"".join(store.believed(NAMESPACE, sealed.manifest.name).read("gpu/0"))
    except Unusable as problem:
        return store.damaged(sealed, problem)
    return False


def test_what_an_older_one_shares_with_a_damaged_one_is_read_and_found_good(
    store: Store, two: tuple[Sealed, Sealed]
) -> None:
    first, second = two
    assert is_damaged(store, second)
    assert not is_damaged(store, first)
    assert is_damaged(store, second)


def test_the_next_agent_shares_nothing_with_it_either(
    store: Store, new_store: Callable[..., Store], made: Make, two: tuple[Sealed, Sealed]
) -> None:
    pieces = [bytes(one) for one in store.open(NAMESPACE, "one").read("gpu/0")]
    assert is_damaged(store, two[1])
    again = new_store()
    assert made(again, "three", pieces).manifest.facts.added > 19 * 4096
    again.open(NAMESPACE, "one")  # read, and good
    assert made(again, "four", pieces).manifest.facts.added < 4096
    for name in ("one", "two", "three", "four"):
        again.delete(NAMESPACE, name)
    assert not list(again.shelf.store.list("doubted"))


def test_a_disk_that_cannot_be_read_is_damage_which_another_copy_mends(
    store: Store, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, get = made(store, "one", [os.urandom(4096)]), Nvme.get

    def failing(self: Nvme, key: str, *more: Any, **named: Any) -> memoryview:
        if "/packs/" in key:
            raise Faulty(f"{key}: Input/output error")
        return get(self, key, *more, **named)

    monkeypatch.setattr(Nvme, "get", failing)
    with pytest.raises(Unusable) as caught:
        store.open(NAMESPACE, "one")
    assert caught.value.reason is Flaw.PACK_ALTERED
    assert is_damaged(store, sealed)


def test_a_disk_that_fails_while_it_is_tidied_unseals_nothing_and_holds_no_room(
    store: Store, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store, "one", [os.urandom(4096)])
    before = store.room().used

    def failing(*_: Any) -> Any:
        raise Faulty("domains: Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(store._holdings, "collect", failing)
        sealed = made(store, "two", [os.urandom(4096)])
    store._holdings.collect()
    assert store.open(NAMESPACE, "two") == sealed
    assert store.room().used < before + 20_000


def test_a_manifest_that_is_not_durable_is_not_left(
    store: Store, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Nvme.put

    def failing(self: Nvme, key: str, content: Any) -> None:
        put(self, key, content)
        if key.startswith(names.MANIFESTS):
            raise Faulty(f"{key}: its folder cannot be synced")

    with monkeypatch.context() as broken:
        broken.setattr(Nvme, "put", failing)
        with pytest.raises(Refused):
            made(store, "one", [os.urandom(4096)])
    assert store.all() == ()
    assert not list(store.shelf.store.list(names.MANIFESTS))
    made(store, "one", [os.urandom(4096)])


def test_plain_files_of_an_agent_of_before_are_gone_after_a_start(
    tmp_path: Path, new_store: Callable[..., Store]
) -> None:
    left = (
        tmp_path / "node-a/arriving" / ("0" * 32) / "files/image/Pages-1.img",
        tmp_path / "node-a/plain/draft-1/files/image/pages-1.img",
    )
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"memory")
    new_store()
    assert not any(path.exists() for path in left)


def test_a_pack_of_which_little_is_needed_is_not_shared(store: Store, made: Make) -> None:
    pieces = [os.urandom(4096) for _ in range(20)]
    first = made(store, "one", pieces)
    little = made(store, "two", pieces[:4])
    assert first.manifest.pack_keys[0] in little.manifest.pack_keys  # the first needs all of it
    store.delete(NAMESPACE, "one")
    third = made(store, "three", pieces[:4])
    assert first.manifest.pack_keys[0] not in third.manifest.pack_keys
    store.delete(NAMESPACE, "two")
    assert store.room().used < 5 * 4096 + 8192


def test_a_domain_is_sealed_in_though_the_key_that_wrapped_its_own_is_lost() -> None:
    store = Ram(2**20, SystemClock().now)
    lost = KeyRing(OLD).newest(store, NAMESPACE)
    ours = KeyRing(NEW).newest(store, NAMESPACE)
    assert ours.id != lost.id
    assert KeyRing(NEW).newest(store, NAMESPACE) == ours
    assert KeyRing(NEW, [OLD]).open(store, NAMESPACE, lost.id) == lost


def test_one_record_that_cannot_be_opened_keeps_no_other_from_being_wrapped_anew() -> None:
    store = Ram(2**20, SystemClock().now)
    for domain in ("a", "b", "c"):
        KeyRing(b"x" * 32 if domain == "b" else OLD).newest(store, domain)
    with pytest.raises(Unusable):
        KeyRing(NEW, [OLD]).rewrap(store)
    for domain in ("a", "c"):
        (record,) = store.list(f"domains/{domain}/keys")
        KeyRing(NEW).open(store, domain, Path(record.key).stem)
