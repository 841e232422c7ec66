"""Checkpoints in the object store: demoted from one node, fetched by another, whatever breaks.

Real: nodes' stores, agents' Copies services over mutual TLS, keys, chunks. Faked: the API server;
the object store is in memory and breaks as it is told to (a real server: tests/node).
"""

import os
import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts import names
from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.faults import Unusable
from kybernate.clients.agents import AgentRefused
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.ladder.keyring import KeyRing
from kybernate.model.artifact import Kind
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.clock import SystemClock
from kybernate.stores.errors import Away, Denied
from kybernate.stores.port import Listed
from kybernate.stores.ram import Ram
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube
from nodeagent.checkpoints.faults import Cancelled, NoRoom, PeerAway
from nodeagent.checkpoints.fetching import Fetched, Wanted
from nodeagent.checkpoints.objects import Given, NoStore, Objects
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
CHUNK, MIB = 2**21, 2**20
Node = Any
BIG = {"gpu/0": os.urandom(20 * CHUNK) + bytes(2 * CHUNK) + b"end", "gpu/1": os.urandom(19 * CHUNK)}


class Bucket(Ram):
    """`trouble(call, key, how often so far)` may raise, or give other bytes than are there."""

    def __init__(self) -> None:
        super().__init__(2**31, SystemClock().now)
        self.calls: list[tuple[str, str]] = []
        self.trouble: Callable[[str, str, int], Bytes | None] = lambda *_: None
        self.moved = 0

    def put(self, key: str, content: Bytes) -> None:
        """As the port says, unless there is trouble."""
        self._asked("put", key)
        super().put(key, content)
        self.moved += len(content)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says, unless there is trouble."""
        other = self._asked("get", key)
        found = super().get(key, offset, size, into) if other is None else memoryview(other)
        self.moved += len(found)
        return found

    def stat(self, key: str) -> Listed:
        """As the port says, unless there is trouble."""
        self._asked("stat", key)
        return super().stat(key)

    def _asked(self, call: str, key: str) -> Bytes | None:
        self.calls.append((call, key))
        return self.trouble(call, key, len(self.calls))

    def alter(self, key: str, at: int, bit: int = 1) -> None:
        """Flip a bit of an object, behind everybody's back."""
        whole = bytearray(super().get(key))
        whole[at % len(whole)] ^= bit
        super().put(key, whole)

    def keys(self, part: str) -> list[str]:
        """Of its objects, those with this part."""
        return [one.key for one in self.list() if part in one.key]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def big(nodes: Callable[[str], Node], facts: Callable[..., Any]) -> Sealed:
    """On node-a, published: 80 MiB in three packs."""
    one = nodes("node-a")
    with one.store.draft(NAMESPACE, NAME) as draft:
        for path, body in BIG.items():
            draft.write(path, [body])
        made: Sealed = draft.seal(facts(parts=()))
    one.publisher.publish(made)
    assert one.publisher.flush(30)
    return made


def wanted(sealed: Sealed) -> Wanted:
    return Wanted(namespace=NAMESPACE, name=NAME, signature=sealed.signature)


def copies(kube: FakeKube) -> list[str]:
    found = kube.get(GPUCHECKPOINTS, NAME, NAMESPACE)["status"]["copies"]
    return sorted(one.get("node") or one["tier"] for one in found)


def lose(node: Node) -> None:
    """The node is gone, and all that was on it."""
    node.stop()
    node.store.delete(NAMESPACE, NAME)


def test_one_node_demotes_it_is_lost_and_another_has_the_very_checkpoint_from_the_store(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube
) -> None:
    with nodes("node-a").client() as client:
        moved = client.demote(NAMESPACE, NAME, sealed.signature)
        assert (moved.size, moved.put > 0) == (sealed.size, True)
        assert client.demote(NAMESPACE, NAME, sealed.signature).put == 0
    assert copies(kube) == ["node-a", "object"]
    lose(nodes("node-a"))
    with nodes("node-b").client() as client:
        moved = client.bring(NAMESPACE, NAME, sealed.signature, ["node-a"], from_store=True)
    assert (moved.source, moved.size) == ("object", sealed.size)
    assert nodes("node-b").store.open(NAMESPACE, NAME) == sealed
    assert nodes("node-b").publisher.flush(30)
    assert copies(kube) == ["node-a", "node-b", "object"]


def test_nothing_is_readable_in_the_store(
    nodes: Callable[[str], Node], big: Sealed, bucket: Bucket
) -> None:
    nodes("node-a").objects.demote(wanted(big))
    assert all(
        BIG["gpu/1"][:64] not in bytes(Ram.get(bucket, key)) for key in bucket.keys("/packs/")
    )


def test_the_copy_on_the_node_goes_once_the_stores_was_compared(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube, bucket: Bucket
) -> None:
    one = nodes("node-a")
    with one.client() as client:
        client.demote(NAMESPACE, NAME, sealed.signature)
        [pack] = bucket.keys("/packs/")
        bucket.alter(pack, 100)
        with pytest.raises(AgentRefused, match="object storage: a pack of its contents is not"):
            client.remove(NAMESPACE, NAME, sealed.signature)
        assert one.store.open(NAMESPACE, NAME)
        bucket.alter(pack, 100)
        freed = client.remove(NAMESPACE, NAME, sealed.signature).size
        assert freed == sealed.manifest.packed
    assert copies(kube) == ["object"]
    assert one.store.all() == ()


def test_the_store_lets_go_only_where_a_node_has_a_good_one(
    nodes: Callable[[str], Node], sealed: Sealed, kube: FakeKube, bucket: Bucket,
    rot: Callable[..., None],
) -> None:  # fmt: skip
    one = nodes("node-a")
    with one.client() as client:
        client.demote(NAMESPACE, NAME, sealed.signature)
        rot(sealed)
        with pytest.raises(AgentRefused, match="no other copy is known to be good: here: a pack"):
            client.withdraw(NAMESPACE, NAME, sealed.signature)
        rot(sealed)
        assert client.withdraw(NAMESPACE, NAME, sealed.signature).size == sealed.size
    assert copies(kube) == ["node-a"]
    assert bucket.keys("manifests/") == []


def test_it_is_demoted_by_one_at_a_time_and_called_off_with_the_call(
    nodes: Callable[[str], Node], big: Sealed, bucket: Bucket, eventually: Any
) -> None:
    first, stuck, go_on = (threading.Event() for _ in range(3))

    def wait(call: str, key: str, _: int) -> None:
        if call == "put" and "/packs/" in key and bucket.calls.count(("put", key)) == 1:
            if not first.is_set():  # it is told how far it is
                first.set()
                return
            stuck.set()
            go_on.wait(30)

    bucket.trouble = wait

    class NoMore(Exception):
        pass

    def enough(*_: object) -> None:
        if stuck.is_set():
            raise NoMore

    one = nodes("node-a")
    with one.client() as client, one.client() as other:
        with pytest.raises(NoMore):
            client.demote(NAMESPACE, NAME, big.signature, enough)
        with pytest.raises(Exception, match="another copy is being demoted now"):
            other.demote(NAMESPACE, NAME, big.signature)
        go_on.set()
        bucket.trouble = lambda *_: None
        eventually(lambda: not one.objects._ends)
        assert bucket.keys("manifests/") == []
        other.demote(NAMESPACE, NAME, big.signature)
    assert bucket.keys("manifests/")


def test_a_deleted_checkpoint_is_demoted_no_further(
    nodes: Callable[[str], Node], big: Sealed, kube: FakeKube, bucket: Bucket
) -> None:
    one = nodes("node-a")

    def deleted(call: str, key: str, _: int) -> None:
        if call == "put" and "/packs/" in key:
            one.objects.call_off(NAMESPACE, NAME)

    bucket.trouble = deleted
    with pytest.raises(Cancelled):
        one.objects.demote(wanted(big))
    bucket.trouble = lambda *_: None
    kube.delete(GPUCHECKPOINTS, NAME, NAMESPACE)
    with one.client() as client, pytest.raises(AgentRefused, match="is not there any more"):
        client.demote(NAMESPACE, NAME, big.signature)
    assert bucket.keys("manifests/") == []


def test_what_breaks_off_goes_on_and_moves_nothing_twice(
    nodes: Callable[[str], Node], big: Sealed, bucket: Bucket
) -> None:
    """Of a fetch: after a store that failed, and after a kill: what lies in the folder counts."""
    nodes("node-a").objects.demote(wanted(big))
    other = nodes("node-b")
    bucket.moved = 0

    def denied(call: str, key: str, _: int) -> None:
        if "/packs/" in key and bucket.moved > 40 * MIB:
            raise Denied("rotated meanwhile")

    bucket.trouble = denied
    with pytest.raises(Denied):
        other.objects.fetch(wanted(big))
    assert other.store.all() == ()
    assert 30 * MIB < other.store.room().used < big.size
    bucket.trouble = lambda *_: None
    seen: list[Fetched] = []
    other.objects.fetch(wanted(big), seen.append)
    assert bucket.moved < big.manifest.packed + 45 * MIB  # what was in flight comes again
    assert (seen[-1].done, seen[-1].total) == (big.manifest.packed,) * 2
    sealed = other.store.open(NAMESPACE, NAME)
    assert b"".join(sealed.read("gpu/0")) == BIG["gpu/0"]
    assert other.store.room().used == nodes("node-a").store.room().used


def test_what_is_left_of_a_fetch_is_not_believed(
    nodes: Callable[[str], Node], big: Sealed, bucket: Bucket, rot: Callable[..., None]
) -> None:
    nodes("node-a").objects.demote(wanted(big))
    other = nodes("node-b")
    left(other.store, big, bucket, packs=2)
    rot(big, "node-b")
    bucket.moved = 0
    other.objects.fetch(wanted(big))
    assert other.store.open(NAMESPACE, NAME)
    came = sum(pack.size for pack in (big.manifest.packs[0], *big.manifest.packs[2:]))
    assert came < bucket.moved < came + MIB


def left(store: Store, sealed: Sealed, bucket: Bucket, packs: int) -> None:
    """What a fetch leaves that was interrupted after so many packs."""

    class Interrupted(Exception):
        pass

    key = store.keys.ring().open(bucket, sealed.manifest.domain, sealed.manifest.key)

    def some() -> None:
        with store.incoming(sealed.opened, key) as incoming:
            for pack in sealed.manifest.packs[:packs]:
                name = names.pack_key(sealed.manifest.domain, pack.name)
                incoming.take(pack, Ram.get(bucket, name))
            raise Interrupted

    with pytest.raises(Interrupted):
        some()


def test_room_that_an_interrupted_fetch_takes_is_given_to_who_needs_it(
    nodes: Callable[[str], Node], new_store: Callable[..., Store], big: Sealed, bucket: Bucket
) -> None:
    nodes("node-a").objects.demote(wanted(big))
    limit = 100 * MIB
    store = new_store("node-c", limit=limit)
    left(store, big, bucket, packs=2)
    used = store.room().used
    assert used > 60 * MIB
    assert new_store("node-c", limit=limit).room().used == used  # also of the next agent
    with store.draft(NAMESPACE, "other", 70 * MIB):
        pass
    assert store.room().used == 0
    left(store, big, bucket, packs=1)
    store.forget(NAMESPACE, NAME, big.signature)  # its GpuCheckpoint is gone
    assert store.room().used == 0
    with pytest.raises(NoRoom), store.draft(NAMESPACE, "other", 110 * MIB):
        pass


@pytest.mark.parametrize("failing", [Away("503"), Away("a body cut short")])
def test_a_store_that_is_ill_for_a_while_is_asked_again(
    nodes: Callable[[str], Node], sealed: Sealed, bucket: Bucket, failing: Away
) -> None:
    one = nodes("node-a")
    objects = Objects(Given(), one.store, Hasty(), store=bucket)

    def ill(call: str, key: str, count: int) -> None:
        if count % 3:
            raise failing

    bucket.trouble = ill
    objects.demote(wanted(sealed))
    other = nodes("node-b").store
    Objects(Given(), other, Hasty(), store=bucket).fetch(wanted(sealed))
    assert other.open(NAMESPACE, NAME)


class Hasty(FakeClock):
    """Whoever waits has waited."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """As the port says; at once."""
        self.advance(seconds)
        return event.is_set()


def test_a_store_that_stays_away_is_given_up_in_words(
    nodes: Callable[[str], Node], sealed: Sealed, bucket: Bucket, wrapping: Path
) -> None:
    def away(*_: object) -> None:
        raise Away("connection refused")

    bucket.trouble = away
    store = nodes("node-a").store
    clock = Hasty()
    objects = Objects(Given(), store, clock, store=bucket)
    began = clock.monotonic()
    for work in (objects.demote, objects.fetch, objects.flaw, objects.remove):
        if work == objects.fetch:
            continue  # it is here
        with pytest.raises(PeerAway, match="the store cannot be reached: connection refused"):
            work(wanted(sealed))
    assert 60 < clock.monotonic() - began < 240  # three times, half a minute to a minute each
    assert store.open(NAMESPACE, NAME)


def test_flipped_bits_anywhere_are_refused_and_leave_nothing(
    nodes: Callable[[str], Node], sealed: Sealed, bucket: Bucket
) -> None:
    nodes("node-a").objects.demote(wanted(sealed))
    other = nodes("node-b")
    for key in [one.key for one in bucket.list()]:
        size = Ram.stat(bucket, key).size
        for at in range(0, size, max(1, size // 40)):
            bucket.alter(key, at)
            try:
                other.objects.fetch(wanted(sealed))
            except (Unusable, NoStore):
                assert other.store.all() == ()
            else:  # a byte that carries nothing: the white space of a key record
                assert other.store.open(NAMESPACE, NAME) == sealed
                other.store.delete(NAMESPACE, NAME)
            bucket.alter(key, at)
    assert other.objects.flaw(wanted(sealed)) == ""


def test_a_truncated_pack_and_a_lost_one(
    nodes: Callable[[str], Node], sealed: Sealed, bucket: Bucket
) -> None:
    nodes("node-a").objects.demote(wanted(sealed))
    [pack] = bucket.keys("/packs/")
    whole = bytes(Ram.get(bucket, pack))
    Ram.put(bucket, pack, whole[: len(whole) // 2])
    with pytest.raises(Unusable) as cut:
        nodes("node-b").objects.fetch(wanted(sealed))
    assert cut.value.reason is Flaw.PACK_ALTERED
    bucket.delete(pack)
    with pytest.raises(Unusable) as lost:
        nodes("node-b").objects.fetch(wanted(sealed))
    assert lost.value.reason is Flaw.PACK_MISSING
    nodes("node-a").objects.demote(wanted(sealed))  # the node's own copy mends it
    assert nodes("node-b").objects.fetch(wanted(sealed)) == sealed


def test_foreign_keys_open_nothing_and_rotated_ones_do(
    nodes: Callable[[str], Node], sealed: Sealed, bucket: Bucket, wrapping: Path, tmp_path: Path,
    new_store: Callable[..., Store],
) -> None:  # fmt: skip
    nodes("node-a").objects.demote(wanted(sealed))
    old = (wrapping / "wrapping.key").read_text()
    (wrapping / "wrapping.key").write_text(b64encode(os.urandom(32)).decode())
    with pytest.raises(Unusable) as foreign:
        nodes("node-b").objects.fetch(wanted(sealed))
    assert foreign.value.reason is Flaw.KEY_ABSENT
    (wrapping / "before.key").write_text(old)
    assert nodes("node-b").objects.fetch(wanted(sealed))
    assert KeyRing.of_folder(wrapping).rewrap(bucket) == 1
    (wrapping / "before.key").unlink()
    assert nodes("node-c").objects.fetch(wanted(sealed))
    stranger = new_store("node-d", keys=Keys.own(tmp_path / "others", wrapping))
    objects = Objects(Given(), stranger, SystemClock(), store=bucket)
    with pytest.raises(Unusable) as unsigned:
        objects.fetch(wanted(sealed))
    assert unsigned.value.reason is Flaw.FOREIGN_SIGNATURE


def test_an_older_manifest_replayed_is_not_what_was_published(
    nodes: Callable[[str], Node], sealed: Sealed, seal: Callable[..., Sealed], bucket: Bucket
) -> None:
    one = nodes("node-a")
    one.objects.demote(wanted(sealed))
    other = nodes("node-b")
    newer = seal(other.store, sealed_at=1_769_999_999.0)
    with pytest.raises(Unusable) as replayed:
        nodes("node-c").objects.fetch(wanted(newer))
    assert replayed.value.reason is Flaw.NOT_PUBLISHED
    with pytest.raises(Exception, match="is another checkpoint in the store"):
        other.objects.demote(wanted(newer))


def test_without_a_store_it_says_so(
    nodes: Callable[[str], Node], sealed: Sealed, bucket: Bucket
) -> None:
    store = nodes("node-a").store
    with pytest.raises(NoStore, match="--checkpoint-store"):
        Objects(Given(), store, SystemClock()).demote(wanted(sealed))


def test_a_disk_that_is_full_leaves_nothing(
    nodes: Callable[[str], Node], big: Sealed, new_store: Callable[..., Store], wrapping: Path,
    bucket: Bucket, facts: Callable[..., Any],
) -> None:  # fmt: skip
    nodes("node-a").objects.demote(wanted(big))
    small = new_store("node-s", limit=10 * MIB)
    objects = Objects(Given(), small, SystemClock(), store=bucket)
    bucket.moved = 0
    with pytest.raises(NoRoom):
        objects.fetch(wanted(big))
    assert bucket.moved < MIB  # asked before anything came
    filling = new_store("node-t", limit=1 << 40, free=lambda _: 10 * MIB)
    with pytest.raises(NoRoom, match="left on the disk"):
        Objects(Given(), filling, SystemClock(), store=bucket).fetch(wanted(big))
    assert filling.room().used == 0
    assert filling.all() == ()


def test_who_waits_for_a_wake_goes_first(
    nodes: Callable[[str], Node], big: Sealed, bucket: Bucket, facts: Callable[..., Any]
) -> None:
    """A demotion that has begun stands still between two objects as long as somebody fetches."""
    one = nodes("node-a")
    one.objects.demote(wanted(big))
    with one.store.draft(NAMESPACE, "second") as draft:
        draft.write("gpu/0", [os.urandom(60 * CHUNK)])
        second = draft.seal(facts(parts=(), sealed_at=5.0))
    one.store.delete(NAMESPACE, NAME)
    bucket.calls.clear()
    begun, fetched = threading.Event(), threading.Event()

    def order(call: str, key: str, _: int) -> None:
        if call == "put" and "/packs/" in key and not begun.is_set():
            begun.set()
            fetched.wait(30)  # the first is on its way until then

    bucket.trouble = order
    behind = Wanted(namespace=NAMESPACE, name="second", signature=second.signature)
    thread = threading.Thread(target=one.objects.demote, args=(behind,))
    thread.start()
    assert begun.wait(30)
    with one.objects.link.hurried():  # from before the fetch on, so that nothing slips between
        one.objects.fetch(wanted(big), use=lambda _: None)
        at = len(bucket.calls)
        fetched.set()
    thread.join(60)
    puts = [
        number for number, (call, key) in enumerate(bucket.calls)
        if call == "put" and "/packs/" in key
    ]  # fmt: skip
    assert len(puts) >= 3
    assert sum(number < at for number in puts) <= 1 + 2  # those that had begun: one, or all three


def test_what_moves_is_measured_and_told(
    nodes: Callable[[str], Node], big: Sealed, bucket: Bucket, wrapping: Path
) -> None:
    heard: list[tuple[Kind, str]] = []
    rates: list[tuple[int, float]] = []
    one, other = nodes("node-a"), nodes("node-b")
    one.objects.listener = lambda kind, artifact, _: heard.append((kind, artifact.identity.name))
    one.objects.demote(wanted(big))
    one.objects.demote(wanted(big))
    assert one.objects.flaw(wanted(big)) == ""
    objects = Objects(
        Given(), other.store, SystemClock(),
        lambda size, seconds: rates.append((size, seconds)), bucket,
    )  # fmt: skip
    objects.fetch(wanted(big))
    assert one.objects.remove(wanted(big)) is not None
    assert one.objects.remove(wanted(big)) is None
    assert heard == [(Kind.COPIED, NAME), (Kind.VERIFIED, NAME), (Kind.REMOVED, NAME)]
    assert rates[0][0] == big.manifest.packed
    assert rates[0][1] > 0


def test_the_stores_inventory_is_of_the_same_artifacts_as_the_nodes(
    nodes: Callable[[str], Node], sealed: Sealed
) -> None:
    from nodeagent.checkpoints import rows

    one = nodes("node-a")
    one.objects.demote(wanted(sealed))
    found = rows.inventories(one.name, rows.of_store(one.store), SystemClock().now, one.objects)
    here, there = found
    assert here.artifacts == there.artifacts
    assert (there.place.node, there.place.tier) == ("", "object")
