"""A checkpoint goes from agent to agent, over mutual TLS, and arrives whole or not at all."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from kybernate.artifacts.faults import Unusable
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints.faults import Cancelled, NoRoom, PeerAway
from nodeagent.checkpoints.lending import AT_ONCE, Lending
from nodeagent.checkpoints.peers import SERVER, Wanted
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

MIB = 2**20
NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
WANTED = Wanted(namespace=NAMESPACE, name=NAME)


def test_what_one_node_sealed_another_wakes_from(
    lent: Any, store: Store, new_store: Callable[..., Store], seal: Any, here: Any
) -> None:
    sealed, other, told = seal(store), new_store("node-b"), []
    wanted = Wanted(namespace=NAMESPACE, name=NAME, signature=sealed.signature, here=here)
    fetched = lent.peers(other).fetch(wanted, "node-a", told.append)
    assert fetched.manifest == sealed.manifest
    assert other.open(NAMESPACE, NAME, here, sealed.signature).size == sealed.size
    for path in ("image/pages-1.img", "image/empty.img", "gpu/0"):
        assert b"".join(fetched.read(path)) == b"".join(sealed.read(path))
    assert (told[-1].done, told[-1].total) == (sealed.size, sealed.size)
    assert told[-1].rate > 0


def test_only_agents_may_fetch(
    lent: Any, store: Store, new_store: Callable[..., Store], seal: Any, left: Any, tmp_path: Path
) -> None:
    seal(store)
    somebody = lent.identity("kyb-client", client=True)
    with pytest.raises(PeerAway, match="only agents may fetch"):
        lent.peers(new_store("node-b"), somebody).fetch(
            Wanted(namespace=NAMESPACE, name=NAME), "node-a"
        )
    assert left(tmp_path / "node-b") == []


def test_what_a_peer_has_not_is_absent(lent: Any, new_store: Callable[..., Store]) -> None:
    with pytest.raises(Unusable) as caught:
        lent.peers(new_store("node-b")).fetch(Wanted(namespace=NAMESPACE, name=NAME), "node-a")
    assert caught.value.reason is Flaw.ABSENT


class Breaking(Lending):
    """Lends, and breaks off every call after some pieces. `asked` has the offsets."""

    def __init__(self, store: Store, after: int) -> None:
        super().__init__(store)
        self._after = after
        self.asked: list[int] = []

    def Fetch(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.asked.append(request.offset)
        yield from islice(super().Fetch(request, context), self._after)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the cable")


def _large(store: Store, facts: Any, size: int = 9 * MIB) -> Sealed:
    with store.draft(NAMESPACE, NAME) as draft:
        draft.write("gpu/0", [bytes([number]) * MIB for number in range(size // MIB)])
        draft.write("image/pages-1.img", [b"end"])
        return draft.seal(facts())


def test_a_lost_connection_is_taken_up_where_it_broke(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    sealed, lending = _large(store, facts), Breaking(store, after=2)
    agents.lend("node-a", lending)
    fetched = agents.peers(new_store("node-b")).fetch(WANTED, "node-a")
    assert fetched.manifest == sealed.manifest
    assert lending.asked == sorted(set(lending.asked))
    assert lending.asked[:2] == [0, 2 * MIB]


def test_an_agent_that_restarts_in_between_is_waited_for(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    sealed, restarted = _large(store, facts), threading.Event()
    agents.lend("node-a", Breaking(store, after=3))
    port = int(agents.addresses["node-a"].rpartition(":")[2])

    def restart(_: Any) -> None:
        if not restarted.is_set():
            restarted.set()
            agents.end("node-a")
            agents.lend("node-a", Lending(store), port)

    fetched = agents.peers(new_store("node-b")).fetch(WANTED, "node-a", restart)
    assert (restarted.is_set(), fetched.manifest) == (True, sealed.manifest)


def test_a_peer_that_gives_nothing_is_given_up_and_nothing_is_left(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, left: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    _large(store, facts)
    agents.lend("node-a", Breaking(store, after=0))
    with pytest.raises(PeerAway, match="nothing came for"):
        agents.peers(new_store("node-b"), first=0.2).fetch(WANTED, "node-a")
    assert left(tmp_path / "node-b") == []


def test_a_peer_that_falls_silent_counts_as_lost(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    class Silent(Lending):
        def Fetch(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
            over = threading.Event()
            context.add_callback(over.set)
            yield next(super().Fetch(request, context))
            over.wait(60)

    _large(store, facts)
    agents.lend("node-a", Silent(store))
    with pytest.raises(PeerAway, match="not a byte for"):
        agents.peers(new_store("node-b"), again=0.5, silence=0.3).fetch(WANTED, "node-a")


def test_a_fetch_that_is_called_off_leaves_nothing(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, left: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    _large(store, facts)
    agents.lend("node-a", Lending(store))
    other, off = new_store("node-b"), threading.Event()
    with pytest.raises(Cancelled):
        agents.peers(other).fetch(WANTED, "node-a", lambda _: off.set(), off)
    assert (left(tmp_path / "node-b"), other.room().used) == ([], 0)


def test_what_has_no_room_is_not_begun(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, left: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    _large(store, facts)
    agents.lend("node-a", Lending(store))
    told: list[Any] = []
    with pytest.raises(NoRoom):
        agents.peers(new_store("node-b", limit=MIB)).fetch(WANTED, "node-a", told.append)
    assert (told, left(tmp_path / "node-b")) == ([], [])


def test_the_same_checkpoint_is_fetched_once_however_many_ask(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    sealed, lending = _large(store, facts), Breaking(store, after=100)
    agents.lend("node-a", lending)
    peers = agents.peers(new_store("node-b"))
    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(peers.fetch, WANTED, "node-a") for _ in range(4)]:
            assert one.result(60).signature == sealed.signature
    assert lending.asked == [0]


def test_a_damaged_copy_is_replaced_once_a_good_one_has_come(
    lent: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    sealed, other = _large(store, facts, MIB), new_store("node-b")
    peers = lent.peers(other, first=0.0)
    here = peers.fetch(WANTED, "node-a").folder
    (here / "gpu/0").write_bytes(b"rotten")
    lent.addresses["nobody"] = "127.0.0.1:9"
    with pytest.raises(PeerAway):
        peers.fetch(WANTED, "nobody")
    assert (here / "gpu/0").read_bytes() == b"rotten"
    assert peers.fetch(WANTED, "node-a").manifest == sealed.manifest
    other.open(NAMESPACE, NAME)
    assert other.room().used < 2 * MIB


def test_a_fifth_borrower_waits_for_the_others(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    go, inside = threading.Event(), threading.Semaphore(0)

    class Slow(Lending):
        @contextmanager
        def _seat(self, context: Any) -> Iterator[None]:
            with super()._seat(context):
                inside.release()
                go.wait(60)
                yield

    sealed = _large(store, facts, MIB)
    agents.lend("node-a", Slow(store))
    told: list[Any] = []
    with ThreadPoolExecutor(AT_ONCE + 1) as threads:
        first = [
            threads.submit(agents.peers(new_store(f"node-{number}")).fetch, WANTED, "node-a")
            for number in range(AT_ONCE)
        ]
        assert all(inside.acquire(timeout=60) for _ in first)
        last = agents.peers(new_store("node-last"), first=0.0)
        fifth = threads.submit(last.fetch, WANTED, "node-a", told.append)
        with pytest.raises(TimeoutError):
            fifth.result(0.5)  # however often it is turned away meanwhile
        go.set()
        assert fifth.result(60).signature == sealed.signature
        for one in first:
            one.result(60)


def test_borrowers_that_went_away_keep_nobody_out(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    _large(store, facts)
    agents.lend("node-a", Lending(store))
    other = new_store("node-b")
    for _ in range(AT_ONCE + 1):
        off = threading.Event()
        with pytest.raises(Cancelled):
            agents.peers(other).fetch(WANTED, "node-a", lambda _, off=off: off.set(), off)
    assert agents.peers(other).fetch(WANTED, "node-a").size


def _piece(content: bytes) -> pb.FetchPiece:
    return pb.FetchPiece(content=content)


def _lying(change: Callable[[Sealed, list[Any]], list[Any]]) -> type[Lending]:
    class Lying(Lending):
        def Fetch(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
            sealed = self._store.peek(request.namespace, request.name)
            yield from change(sealed, list(super().Fetch(request, context)))

    return Lying


def _flipped(_: Sealed, pieces: list[Any]) -> list[Any]:
    content = bytearray(pieces[1].content)
    content[3] ^= 1
    return [pieces[0], _piece(bytes(content)), *pieces[2:]]


def _resigned(sealed: Sealed, pieces: list[Any]) -> list[Any]:
    forged = sealed.content.replace(b"serve.py", b"other.py")
    artifact = pb.Artifact(manifest=forged, signature=sealed.signature)
    return [pb.FetchPiece(artifact=artifact), *pieces[1:]]


LIES: dict[str, tuple[Callable[[Sealed, list[Any]], list[Any]], Flaw]] = {
    "a-flipped-bit": (_flipped, Flaw.FILE_ALTERED),
    "too-little": (lambda _, pieces: pieces[:-1], Flaw.FILE_SIZE),
    "too-much": (lambda _, pieces: [*pieces[:-1], _piece(bytes(9 * MIB))], Flaw.FILE_SIZE),
    "nothing-in-a-piece": (lambda _, pieces: [pieces[0], _piece(b"")], Flaw.FILE_SIZE),
    "no-manifest": (lambda _, pieces: pieces[1:], Flaw.MALFORMED),
    "nothing": (lambda _, __: [], Flaw.MALFORMED),
    "another-manifest": (_resigned, Flaw.FORGED),
    "a-second-manifest": (lambda _, pieces: [pieces[0], pieces[0]], Flaw.FILE_SIZE),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_peer_that_lies_is_refused_and_nothing_of_it_is_left(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, left: Any,
    tmp_path: Path, lie: str,
) -> None:  # fmt: skip
    change, expected = LIES[lie]
    _large(store, facts, 3 * MIB)
    agents.lend("node-a", _lying(change)(store))
    other = new_store("node-b")
    before = {path for path in tmp_path.rglob("*") if "node-b" not in path.parts}
    with pytest.raises(Unusable) as caught:
        agents.peers(other).fetch(WANTED, "node-a")
    assert caught.value.reason is expected
    assert (left(tmp_path / "node-b"), other.room().used) == ([], 0)
    assert {path for path in tmp_path.rglob("*") if "node-b" not in path.parts} == before


def test_a_strangers_checkpoint_is_refused_before_a_byte_of_it_comes(
    agents: Any, new_store: Callable[..., Store], facts: Any, left: Any, tmp_path: Path
) -> None:
    strange = new_store(keys=Keys.own(tmp_path / "strangers-keys"))
    _large(strange, facts)
    agents.lend("node-a", Lending(strange))
    told: list[Any] = []
    with pytest.raises(Unusable) as caught:
        agents.peers(new_store("node-b")).fetch(WANTED, "node-a", told.append)
    assert (caught.value.reason, told) == (Flaw.FOREIGN_SIGNATURE, [])
    assert left(tmp_path / "node-b") == []


def test_what_cannot_wake_here_is_not_fetched(
    agents: Any, store: Store, new_store: Callable[..., Store], facts: Any, here: Any
) -> None:
    _large(store, facts)
    agents.lend("node-a", Lending(store))
    wanted, told = replace(WANTED, here=replace(here, kernel="5.10.0")), []
    with pytest.raises(Unusable) as caught:
        agents.peers(new_store("node-b")).fetch(wanted, "node-a", told.append)
    assert (caught.value.reason, told) == (Flaw.OTHER_KERNEL, [])


def test_another_one_than_the_published_is_not_lent(
    lent: Any, store: Store, new_store: Callable[..., Store], facts: Any
) -> None:
    _large(store, facts)
    wanted = replace(WANTED, signature=store.keys.sign(b"another"))
    with pytest.raises(Unusable) as caught:
        lent.peers(new_store("node-b")).fetch(wanted, "node-a")
    assert caught.value.reason is Flaw.NOT_PUBLISHED


def test_a_file_that_was_cut_short_at_the_peer_is_noticed(
    lent: Any, store: Store, new_store: Callable[..., Store], facts: Any, left: Any, tmp_path: Path
) -> None:
    with (_large(store, facts).folder / "gpu/0").open("r+b") as file:
        file.truncate(MIB)
    with pytest.raises(Unusable) as caught:
        lent.peers(new_store("node-b")).fetch(WANTED, "node-a")
    assert caught.value.reason is Flaw.FILE_SIZE
    assert left(tmp_path / "node-b") == []


@pytest.mark.parametrize("key", [("..", NAME), (NAMESPACE, "../../etc"), ("", "")])
def test_a_request_with_a_path_for_a_name_is_refused(
    lent: Any, new_store: Callable[..., Store], key: tuple[str, str]
) -> None:
    channel = grpc.secure_channel(
        lent.addresses["node-a"],
        lent.client.grpc_channel_credentials(),
        options=(("grpc.ssl_target_name_override", SERVER),),
    )
    request = pb.FetchRequest(namespace=key[0], name=key[1])
    with channel:
        asked = rpc.CheckpointsStub(channel).Fetch(request, timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            next(asked)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "BAD_NAME" in caught.value.details()
