"""A checkpoint goes from agent to agent, over mutual TLS, and arrives whole or not at all."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts import manifest as manifests
from kybernate.artifacts import names, packs, signing
from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.faults import Unusable
from kybernate.ladder import copying
from kybernate.model.checkpoint import Flaw
from kybernate.stores.errors import Absent, Away
from kybernate.stores.peer import Peer
from kybernate.stores.port import Store as Objects
from nodeagent.checkpoints.faults import Cancelled, NoRoom, PeerAway
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.lentstore import LentStore
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

MIB = 2**20
NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
WANTED = Wanted(namespace=NAMESPACE, name=NAME)


class Told:
    """What a node lends, as the test has it: `asked` has the packs that were asked for, `say` may
    raise or answer something else for an object, by its key and how often it was asked for."""

    def __init__(self, store: Objects) -> None:
        self._store = store
        self.asked: list[str] = []
        self.say: Callable[[str, memoryview, int], Bytes] = lambda _, content, __: content
        self.count = 0

    def get(self, key: str, *more: Any) -> memoryview:
        """As the port says, or as the test does."""
        self.count += 1
        if "/packs/" in key:
            self.asked.append(key)
        return memoryview(self.say(key, self._store.get(key, *more), self.count))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some MiB are several packs, which come one after the other."""
    monkeypatch.setattr(packs, "FULL", 2 * MIB)
    monkeypatch.setattr(copying, "AT_ONCE", 1)


@pytest.fixture
def told(agents: Any, store: Store) -> Told:
    """What node-a lends."""
    made = Told(store.shelf.store)
    agents.lend("node-a", LentStore(made))
    return made


def _large(store: Store, facts: Any, size: int = 9) -> Sealed:
    """Of so many MiB, each different, in packs of one MiB."""
    with store.draft(NAMESPACE, NAME) as draft:
        draft.write("gpu/0", [bytes([number + 1]) * MIB for number in range(size)])
        draft.write("image/pages-1.img", [b"end"])
        return draft.seal(facts())


def test_what_one_node_sealed_another_wakes_from(
    lent: Any, store: Store, new_store: Callable[..., Store], seal: Any, here: Any
) -> None:
    sealed, other, told = seal(store), new_store("node-b"), []
    wanted = Wanted(namespace=NAMESPACE, name=NAME, signature=sealed.signature, here=here)
    fetched = lent.peers(other).fetch(wanted, "node-a", told.append)
    assert fetched == sealed
    assert other.open(NAMESPACE, NAME, here, sealed.signature).size == sealed.size
    for path in ("image/pages-1.img", "image/empty.img", "gpu/0"):
        assert b"".join(fetched.read(path)) == b"".join(sealed.read(path))
    assert (told[-1].done, told[-1].total) == (sealed.manifest.packed,) * 2
    assert told[-1].rate > 0


def test_only_agents_may_fetch(
    lent: Any, store: Store, new_store: Callable[..., Store], seal: Any, left: Any, tmp_path: Path
) -> None:
    seal(store)
    somebody = lent.identity("kyb-client", client=True)
    with pytest.raises(PeerAway, match="only agents may"):
        lent.peers(new_store("node-b"), somebody).fetch(WANTED, "node-a")
    assert left(tmp_path / "node-b") == []


def test_nothing_beside_checkpoints_is_lent(
    lent: Any, store: Store, seal: Any, tmp_path: Path
) -> None:
    Keys.own(tmp_path / "node-a/keys")
    seal(store)
    peer = Peer(lent.addresses["node-a"], lent.client.grpc_channel_credentials)
    for key in ("keys/signing.key", "keys/wrapping.key"):
        with pytest.raises(Absent):
            peer.get(key)
    assert {one.key.split("/")[0] for one in peer.list()} == {"manifests", "domains"}
    peer.close()


def test_what_a_peer_has_not_is_absent(lent: Any, new_store: Callable[..., Store]) -> None:
    with pytest.raises(Unusable) as caught:
        lent.peers(new_store("node-b")).fetch(WANTED, "node-a")
    assert caught.value.reason is Flaw.ABSENT


def test_a_lost_connection_is_taken_up_where_it_broke(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told
) -> None:
    sealed = _large(store, facts)

    def breaks(key: str, content: Bytes, count: int) -> Bytes:
        if count % 3 == 0:
            raise Away("the cable")
        return content

    told.say = breaks
    fetched = agents.peers(new_store("node-b")).fetch(WANTED, "node-a")
    assert fetched.manifest == sealed.manifest
    all_packs = len(sealed.manifest.packs)
    assert all_packs < len(told.asked) < 2 * all_packs  # those that broke again, and no other


def test_what_is_here_of_another_checkpoint_does_not_come_again(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told
) -> None:
    first, other = _large(store, facts), new_store("node-b")
    agents.peers(other).fetch(WANTED, "node-a")
    with store.draft(NAMESPACE, "second") as draft:
        draft.write("gpu/0", [bytes([number + 1]) * MIB for number in (0, 1, 2, 77)])
        second = draft.seal(facts())
    before = len(told.asked)
    agents.peers(other).fetch(replace(WANTED, name="second"), "node-a")
    assert len(told.asked) == before + 1
    shared = set(first.manifest.pack_keys) & set(second.manifest.pack_keys)
    assert len(shared) >= 3
    other.delete(NAMESPACE, NAME)
    other.open(NAMESPACE, "second")


def test_an_agent_that_restarts_in_between_is_waited_for(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told
) -> None:
    sealed, restarted = _large(store, facts), threading.Event()
    port = int(agents.addresses["node-a"].rpartition(":")[2])

    def restart(_: Any) -> None:
        if not restarted.is_set():
            restarted.set()
            agents.end("node-a")
            agents.lend("node-a", LentStore(store.shelf.store), port)

    fetched = agents.peers(new_store("node-b")).fetch(WANTED, "node-a", restart)
    assert (restarted.is_set(), fetched.manifest) == (True, sealed.manifest)


def test_a_peer_that_gives_nothing_is_given_up_and_nothing_is_left(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, left: Any,
    tmp_path: Path, told: Told,
) -> None:  # fmt: skip
    _large(store, facts)

    def breaks(*_: object) -> Bytes:
        raise Away("the cable")

    told.say = breaks
    with pytest.raises(PeerAway, match="the cable"):
        agents.peers(new_store("node-b"), tries=3).fetch(WANTED, "node-a")
    assert left(tmp_path / "node-b") == []
    assert told.count == 3


def test_what_came_before_a_fetch_was_called_off_is_there_for_the_next(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told
) -> None:
    sealed = _large(store, facts)
    other, off = new_store("node-b"), threading.Event()
    with pytest.raises(Cancelled):
        agents.peers(other).fetch(WANTED, "node-a", lambda _: off.set(), off)
    assert other.all() == ()
    assert 0 < other.room().used < sealed.manifest.packed
    came = len(told.asked)
    agents.peers(new_store("node-b")).fetch(WANTED, "node-a")  # also after a restart
    assert len(told.asked) == came + len(sealed.manifest.packs) - 1


def test_what_has_no_room_is_not_begun(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, left: Any,
    tmp_path: Path, told: Told,
) -> None:  # fmt: skip
    _large(store, facts)
    with pytest.raises(NoRoom):
        agents.peers(new_store("node-b", limit=MIB)).fetch(WANTED, "node-a")
    assert (told.asked, left(tmp_path / "node-b")) == ([], [])


def test_the_same_checkpoint_is_fetched_once_however_many_ask(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told
) -> None:
    sealed = _large(store, facts)
    peers = agents.peers(new_store("node-b"))
    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(peers.fetch, WANTED, "node-a") for _ in range(4)]:
            assert one.result(60).signature == sealed.signature
    assert sorted(told.asked) == sorted(sealed.manifest.pack_keys)


def test_a_damaged_copy_is_replaced_once_a_good_one_has_come(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told, rot: Any
) -> None:
    sealed, other = _large(store, facts), new_store("node-b")
    peers = agents.peers(other)
    peers.fetch(WANTED, "node-a")
    used = other.room().used
    rot(sealed, "node-b")
    agents.addresses["nobody"] = "127.0.0.1:9"
    with pytest.raises(PeerAway):
        agents.peers(other, tries=2).fetch(WANTED, "nobody")
    assert other.peek(NAMESPACE, NAME)
    told.asked.clear()
    assert peers.fetch(WANTED, "node-a").manifest == sealed.manifest
    assert told.asked == [sealed.manifest.pack_keys[0]]  # the one that rotted
    other.open(NAMESPACE, NAME)
    assert other.room().used == used


def _flipped(key: str, content: memoryview) -> Bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return changed if "/packs/" in key else content


def _resigned(key: str, content: memoryview) -> Bytes:
    forged = bytes(content).replace(b"serve.py", b"other.py")
    return forged if key.startswith(names.MANIFESTS) else content


LIES: dict[str, tuple[Callable[[str, memoryview], Bytes], Flaw]] = {
    "a-flipped-bit": (_flipped, Flaw.PACK_ALTERED),
    "too-little": (lambda k, c: c[:-1] if "/packs/" in k else c, Flaw.PACK_ALTERED),
    "nothing-in-a-pack": (lambda k, c: b"" if "/packs/" in k else c, Flaw.PACK_ALTERED),
    "nothing-in-a-manifest": (
        lambda k, c: b"" if k.startswith(names.MANIFESTS) else c,
        Flaw.MALFORMED,
    ),
    "another-manifest": (_resigned, Flaw.FORGED),
    "another-key": (
        lambda k, c: bytes(c).replace(b'"secret": "', b'"secret": "AAAA') if "/keys/" in k else c,
        Flaw.MALFORMED,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_peer_that_lies_is_refused_and_nothing_of_it_is_believed(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told, lie: str
) -> None:
    change, expected = LIES[lie]
    sealed = _large(store, facts, 3)
    told.say = lambda key, content, _: change(key, content)
    other = new_store("node-b")
    with pytest.raises(Unusable) as caught:
        agents.peers(other).fetch(WANTED, "node-a")
    assert (caught.value.reason, other.all()) == (expected, ())
    told.say = lambda _, content, __: content
    agents.peers(other).fetch(WANTED, "node-a")  # another try with an honest one does
    assert other.open(NAMESPACE, NAME) == sealed


def test_a_strangers_checkpoint_is_refused_before_a_byte_of_it_comes(
    agents: Any, new_store: Callable[..., Store], facts: Any, left: Any, tmp_path: Path
) -> None:
    strange = new_store(keys=Keys.own(tmp_path / "strangers-keys"))
    _large(strange, facts)
    told = Told(strange.shelf.store)
    agents.lend("node-a", LentStore(told))
    with pytest.raises(Unusable) as caught:
        agents.peers(new_store("node-b")).fetch(WANTED, "node-a")
    assert (caught.value.reason, told.asked) == (Flaw.FOREIGN_SIGNATURE, [])
    assert left(tmp_path / "node-b") == []


def test_a_manifest_that_we_signed_for_another_name_is_misplaced(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told
) -> None:
    """The keys of a peer are ours: what it replays is looked at all the same."""
    sealed = _large(store, facts, 3)
    renamed = manifests.renamed(sealed.manifest, NAMESPACE, "another")
    blob = signing.signed(manifests.encode(renamed), store.keys.signer)
    told.say = lambda key, content, _: blob if key.startswith(names.MANIFESTS) else content
    with pytest.raises(Unusable) as caught:
        agents.peers(new_store("node-b")).fetch(WANTED, "node-a")
    assert caught.value.reason is Flaw.MISPLACED


def test_what_cannot_wake_here_is_not_fetched(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, here: Any, told: Told
) -> None:
    _large(store, facts)
    wanted = replace(WANTED, here=replace(here, kernel="5.10.0"))
    with pytest.raises(Unusable) as caught:
        agents.peers(new_store("node-b")).fetch(wanted, "node-a")
    assert (caught.value.reason, told.asked) == (Flaw.OTHER_KERNEL, [])


def test_another_one_than_the_published_is_not_fetched(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told
) -> None:
    _large(store, facts)
    wanted = replace(WANTED, signature=store.keys.sign(b"another"))
    with pytest.raises(Unusable) as caught:
        agents.peers(new_store("node-b")).fetch(wanted, "node-a")
    assert (caught.value.reason, told.asked) == (Flaw.NOT_PUBLISHED, [])


def test_a_node_whose_wrapping_key_is_another_cannot_open_it(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, told: Told, keys: Keys,
    tmp_path: Path,
) -> None:  # fmt: skip
    _large(store, facts)
    Keys.own(tmp_path / "other")
    other = new_store("node-b", keys=Keys(tmp_path / "keys", tmp_path / "other"))
    with pytest.raises(Unusable) as caught:
        agents.peers(other).fetch(WANTED, "node-a")
    assert (caught.value.reason, told.asked) == (Flaw.KEY_ABSENT, [])


def test_a_pack_that_was_cut_short_at_the_peer_is_noticed(
    lent: Any, store: Store, new_store: Callable[..., Store], facts: Any, tmp_path: Path
) -> None:
    sealed = _large(store, facts)
    path = tmp_path / "node-a" / sealed.manifest.pack_keys[0]
    path.write_bytes(path.read_bytes()[: MIB // 2])
    other = new_store("node-b")
    with pytest.raises(Unusable) as caught:
        lent.peers(other).fetch(WANTED, "node-a")
    assert (caught.value.reason, other.all()) == (Flaw.PACK_ALTERED, ())
