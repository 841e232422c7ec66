"""
Another agent's store whose agent is away, slow, ill or hostile; who may do what there.

Real: gRPC and mutual TLS on loopback. Faked: peers that lie (a servicer that answers as it likes).
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from kybernate.api import names
from kybernate.artifacts.faults import Unusable
from kybernate.clients.backoff import Pace
from kybernate.clients.pb import peerstore_pb2 as pb
from kybernate.clients.pb import peerstore_pb2_grpc as rpc
from kybernate.clients.reaching import SERVER
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.tls import TlsFiles
from kybernate.stores import peer as peers
from kybernate.stores.errors import Absent, Away, BadKey, Denied, Faulty, NoRoom
from kybernate.stores.nvme import Nvme
from kybernate.stores.peer import Peer
from kybernate.stores.port import Store
from kybernate.stores.ram import Ram
from kybernate.stores.retrying import Retrying
from kybernate.stores.verified import Verified
from kybernate.testing.artifacts import made
from nodeagent.checkpoints import lentstore
from nodeagent.checkpoints.lentstore import LentStore as Lent
from testbed.lentstores import Lender

MIB = 2**20
Lend = Callable[[rpc.PeerStoreServicer], Lender]


def LentStore(store: Store | None, *, writable: bool = False) -> Lent:  # noqa: N802
    """Of objects of any name."""
    return Lent(store, writable=writable, below=("",))


class Lying(rpc.PeerStoreServicer):
    """Answers a Get and a List with these."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = pieces

    def Get(self, request: pb.GetRequest, context: Any) -> Iterator[pb.GetPiece]:  # noqa: N802
        yield from self._pieces

    List = Get  # type: ignore[assignment]


@pytest.fixture
def ram() -> Ram:
    """What is lent."""
    return Ram(256 * MIB, SystemClock().now)


def _stub(lender: Lender, name: str = names.AGENT_CLIENT) -> rpc.PeerStoreStub:
    """Without our side's care."""
    credentials = TlsFiles(lender.identity(name)).grpc_channel_credentials()
    options = (("grpc.ssl_target_name_override", SERVER),)
    return rpc.PeerStoreStub(grpc.secure_channel(lender.address, credentials, options))


def _patient(peer: Peer) -> Retrying:
    ended = threading.Event()
    return Retrying(peer, SystemClock(), ended, tries=40, pace=Pace(first=0.05, longest=0.5))


class TestAway:
    def test_nobody_there(self, lend: Lend, ram: Ram) -> None:
        lender = lend(LentStore(ram, writable=True))
        peer = lender.peer()
        lender.end()
        for ask in (peer.get, peer.stat, peer.delete, lambda key: peer.put(key, b"x")):
            with pytest.raises(Away):
                ask("a")
        with pytest.raises(Away):
            list(peer.list())

    def test_an_agent_that_is_started_anew_is_found(self, lend: Lend, ram: Ram) -> None:
        lender = lend(LentStore(ram))
        ram.put("a", b"x" * MIB)
        peer = lender.peer()
        assert len(peer.get("a")) == MIB
        lender.end()
        with pytest.raises(Away):
            peer.get("a")
        lender.begin()
        assert len(_patient(peer).get("a")) == MIB

    def test_one_that_ends_in_the_middle_costs_that_object(self, lend: Lend) -> None:
        """The rest of the object never comes; whoever tries again gets the whole."""
        sent, ending = threading.Event(), threading.Event()
        content = bytes(range(256)) * 4096 * 8

        class Dying(rpc.PeerStoreServicer):
            def Get(self, request: Any, context: Any) -> Iterator[pb.GetPiece]:  # noqa: N802
                yield pb.GetPiece(size=len(content), content=content[:MIB])
                if not ending.is_set():
                    sent.set()
                    assert ending.wait(30)
                    return
                for at in range(MIB, len(content), MIB):
                    yield pb.GetPiece(content=content[at : at + MIB])

        lender = lend(Dying())
        peer = lender.peer()
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(peer.get, "a")
            again = threads.submit(_patient(peer).get, "a")
            assert sent.wait(30)
            lender.end()
            with pytest.raises(Away):
                first.result(30)
            ending.set()
            lender.begin()
            assert bytes(again.result(60)) == content

    def test_one_that_says_nothing_is_given_up(self, lend: Lend) -> None:
        over = threading.Event()

        class Silent(rpc.PeerStoreServicer):
            def Get(self, request: Any, context: Any) -> Iterator[pb.GetPiece]:  # noqa: N802
                yield pb.GetPiece(size=10, content=b"12345")
                over.wait(60)

        peer = lend(Silent()).peer(timeout=0.5)
        try:
            with pytest.raises(Away, match="DEADLINE_EXCEEDED"):
                peer.get("a")
        finally:
            over.set()

    def test_a_store_behind_it_that_is_away(self, lend: Lend) -> None:
        class Ill(Ram):
            def get(self, *_: object, **__: object) -> memoryview:
                raise Away("its server is down")

            def stat(self, key: str) -> Any:
                raise Faulty(f"{key}: its disk fails")

        lender = lend(LentStore(Ill(1, SystemClock().now)))
        peer = lender.peer()
        with pytest.raises(Away, match="its server is down"):
            peer.get("a")
        with pytest.raises(Faulty, match="its disk fails"):
            peer.stat("a")

    def test_a_new_certificate_counts_from_the_next_connection(self, lend: Lend, ram: Ram) -> None:
        """Ours was taken away meanwhile: no call breaks while the connection stands."""
        lender, asked = lend(LentStore(ram)), []
        ram.put("a", b"x")
        files = TlsFiles(lender.identity())

        def credentials() -> grpc.ChannelCredentials:
            asked.append(1)
            return files.grpc_channel_credentials()

        peer = Peer(lender.address, credentials)
        for _ in range(3):
            peer.get("a")
        assert len(asked) == 1
        lender.end()
        with pytest.raises(Away):
            peer.get("a")
        lender.begin()
        assert bytes(_patient(peer).get("a")) == b"x"
        assert len(asked) > 1


class TestLies:
    def test_an_object_that_is_cut_short(self, lend: Lend) -> None:
        peer = lend(Lying(pb.GetPiece(size=10, content=b"12345"))).peer()
        with pytest.raises(Away, match="5 bytes of 10"):
            peer.get("a")

    def test_an_answer_without_a_piece(self, lend: Lend) -> None:
        with pytest.raises(Away, match="before it began"):
            lend(Lying()).peer().get("a")

    def test_more_than_it_spoke_of(self, lend: Lend) -> None:
        peer = lend(Lying(pb.GetPiece(size=3, content=b"123"), pb.GetPiece(content=b"4"))).peer()
        with pytest.raises(Faulty, match="more than the 3 bytes"):
            peer.get("a")

    def test_more_than_was_asked_for(self, lend: Lend) -> None:
        peer = lend(Lying(pb.GetPiece(size=100, content=b"1" * 100))).peer()
        with pytest.raises(Faulty, match="expected at most 10"):
            peer.get("a", 0, 10)

    @pytest.mark.parametrize("size", [peers.MOST + 1, 2**63, 2**64 - 1])
    def test_no_memory_is_taken_for_what_no_object_can_be(self, lend: Lend, size: int) -> None:
        with pytest.raises(Faulty, match="expected at most"):
            lend(Lying(pb.GetPiece(size=size))).peer().get("a")

    @pytest.mark.parametrize("key", ["../../etc/passwd", "", "A", "elsewhere/a"])
    def test_a_listing_of_what_is_no_key_or_elsewhere(self, lend: Lend, key: str) -> None:
        lying = Lying(pb.ListPiece(objects=[pb.Listed(key=key)]))
        with pytest.raises(Faulty, match="the peer lists"):
            list(lend(lying).peer().list("packs"))

    def test_wrong_bytes_are_never_given_out(self, lend: Lend, ram: Ram) -> None:
        objects = made().objects
        key = next(key for key in objects if "/packs/" in key)
        ram.put(key, objects[key][:-20] + b"\0" + objects[key][-19:])
        peer = Verified(lend(LentStore(ram)).peer())
        with pytest.raises(Unusable):
            peer.get(key)


class TestWhoMayDoWhat:
    @pytest.mark.parametrize("name", [names.CLIENT, names.ACTIVATOR_CLIENT, "somebody"])
    def test_only_agents_are_served(self, lend: Lend, ram: Ram, name: str) -> None:
        ram.put("a", b"x")
        peer = lend(LentStore(ram, writable=True)).peer(name)
        for ask in (peer.get, peer.stat, peer.delete, lambda key: peer.put(key, b"x")):
            with pytest.raises(Denied, match="only agents"):
                ask("a")
        with pytest.raises(Denied, match="only agents"):
            list(peer.list())

    def test_a_foreign_authority_is_nobody(self, lend: Lend, ram: Ram, tmp_path: Path) -> None:
        lender, other = lend(LentStore(ram)), lend(LentStore(ram))
        files = TlsFiles(other.identity())
        peer = Peer(lender.address, files.grpc_channel_credentials)
        with pytest.raises(Away):
            peer.get("a")

    def test_what_is_lent_to_be_read_stays_as_it_is(self, lend: Lend, ram: Ram) -> None:
        ram.put("a", b"x")
        peer = lend(LentStore(ram)).peer()
        assert bytes(peer.get("a")) == b"x"
        with pytest.raises(Denied, match="lends its store to be read"):
            peer.put("a", b"y")
        with pytest.raises(Denied, match="lends its store to be read"):
            peer.delete("a")
        assert bytes(ram.get("a")) == b"x"

    def test_what_is_no_key_is_not_listed(self, lend: Lend, tmp_path: Path) -> None:
        store = Nvme(tmp_path / "store")
        store.put("manifests/default/a", b"x")
        (tmp_path / "store" / "manifests" / "default" / "Mine.OLD").write_bytes(b"x")
        peer = lend(Lent(store)).peer()
        assert [one.key for one in peer.list()] == ["manifests/default/a"]

    def test_what_is_no_part_of_a_store_of_checkpoints_is_not_there(
        self, lend: Lend, tmp_path: Path
    ) -> None:
        """Whatever lies beside it in its folder: an agent's own keys, say."""
        store = Nvme(tmp_path / "store")
        lent = {"manifests/default/a", "domains/default/packs/ab/cd", "domains/lab/keys/00"}
        for key in (*lent, "keys/signing.key", "plain/a", "manifestsx/a"):
            store.put(key, b"x")
        peer = lend(Lent(store, writable=True)).peer()
        assert {one.key for one in peer.list()} == lent
        assert {one.key for one in peer.list("manifests")} == {"manifests/default/a"}
        assert {one.key for one in peer.list("domains/lab")} == {"domains/lab/keys/00"}
        assert list(peer.list("keys")) == []
        for ask in (peer.get, peer.stat, peer.delete, lambda key: peer.put(key, b"y")):
            for key in ("keys/signing.key", "plain/a", "manifests", "domains"):
                with pytest.raises(Absent):
                    ask(key)
        assert bytes(store.get("keys/signing.key")) == b"x"
        assert bytes(peer.get("manifests/default/a")) == b"x"

    def test_an_agent_without_a_store_says_so(self, lend: Lend) -> None:
        with pytest.raises(Denied, match="no store to lend"):
            lend(LentStore(None)).peer().get("a")

    def test_an_agent_of_before_says_so(self, lend: Lend, tmp_path: Path) -> None:
        lender = Lender(tmp_path / "old", lambda server: None)
        try:
            with pytest.raises(Denied, match="UNIMPLEMENTED"):
                lender.peer().get("a")
        finally:
            lender.end()

    def test_who_gives_no_end_is_refused(self, lend: Lend, ram: Ram) -> None:
        stub = _stub(lend(LentStore(ram)))
        for deadline in (None, lentstore.LONGEST_S + 60):
            with pytest.raises(grpc.RpcError) as said:
                stub.Stat(pb.StatRequest(key="a"), timeout=deadline)
            assert said.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    @pytest.mark.parametrize("key", ["../a", "", "A", "drafts/x"])
    def test_keys_are_looked_at_on_both_sides(self, lend: Lend, key: str, tmp_path: Path) -> None:
        """Also of a caller that does not."""
        stub = _stub(lend(LentStore(Nvme(tmp_path / "store"), writable=True)))
        asks: tuple[Callable[[], Any], ...] = (
            lambda: list(stub.Get(pb.GetRequest(key=key), timeout=5)),
            lambda: stub.Stat(pb.StatRequest(key=key), timeout=5),
            lambda: stub.Delete(pb.DeleteRequest(key=key), timeout=5),
            lambda: stub.Put(iter([pb.PutPiece(key=key, size=1, content=b"x")]), timeout=5),
        )
        for ask in asks:
            with pytest.raises(grpc.RpcError) as said:
                ask()
            assert said.value.code() is grpc.StatusCode.INVALID_ARGUMENT


class TestBounds:
    def test_a_full_store_is_told_and_keeps_what_was(self, lend: Lend) -> None:
        small = Ram(MIB, SystemClock().now)
        peer = lend(LentStore(small, writable=True)).peer()
        peer.put("a", b"x" * 1000)
        with pytest.raises(NoRoom, match="are left"):
            peer.put("a", b"y" * 2 * MIB)
        assert bytes(peer.get("a")) == b"x" * 1000

    def test_what_is_larger_than_any_object_is_told(
        self, lend: Lend, ram: Ram, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lender = lend(LentStore(ram, writable=True))
        peer, stub = lender.peer(), _stub(lender)
        monkeypatch.setattr(peers, "MOST", MIB)
        ram.put("a", b"x" * (MIB + 1))
        with pytest.raises(Faulty, match="larger than"):
            peer.get("a")
        assert len(peer.get("a", 1)) == MIB  # pieces of it are to be had
        with pytest.raises(NoRoom, match="expected at most"):
            peer.put("b", b"x" * (MIB + 1))
        with pytest.raises(grpc.RpcError) as said:
            stub.Put(iter([pb.PutPiece(key="b", size=2**63)]), timeout=5)
        assert said.value.code() is grpc.StatusCode.OUT_OF_RANGE

    @pytest.mark.parametrize(
        "pieces",
        [
            [pb.PutPiece(key="a", size=10, content=b"12345")],
            [pb.PutPiece(key="a", size=3, content=b"123"), pb.PutPiece(content=b"4")],
            [pb.PutPiece(key="a", size=3)],
        ],
    )
    def test_of_a_put_that_is_not_whole_nothing_is_kept(
        self, lend: Lend, ram: Ram, pieces: list[pb.PutPiece]
    ) -> None:
        ram.put("a", b"before")
        stub = _stub(lend(LentStore(ram, writable=True)))
        with pytest.raises(grpc.RpcError) as said:
            stub.Put(iter(pieces), timeout=5)
        assert said.value.code() is grpc.StatusCode.DATA_LOSS
        assert bytes(ram.get("a")) == b"before"

    def test_of_a_writer_that_dies_nothing_is_kept(self, lend: Lend, ram: Ram) -> None:
        begun, released = threading.Event(), threading.Event()

        def pieces() -> Iterator[pb.PutPiece]:
            yield pb.PutPiece(key="a", size=10, content=b"12345")
            begun.set()
            released.wait(30)

        lender = lend(LentStore(ram, writable=True))
        call = _stub(lender).Put.future(pieces(), timeout=30)
        assert begun.wait(30)
        call.cancel()
        released.set()
        peer = lender.peer()
        for _ in range(2 * lentstore.AT_ONCE):  # its seat is free again
            peer.put("b", b"x")
        with pytest.raises(Absent):
            peer.get("a")

    def test_so_many_at_once_and_no_more(self, lend: Lend) -> None:
        """Memory is that of AT_ONCE objects; who waits is served in its turn."""
        lock, now, most = threading.Lock(), [0], [0]
        together, go = threading.Semaphore(0), threading.Event()

        class Counted(Ram):
            def get(self, *_: object, **__: object) -> memoryview:
                with lock:
                    now[0] += 1
                    most[0] = max(most[0], now[0])
                together.release()
                go.wait(30)
                with lock:
                    now[0] -= 1
                return memoryview(b"x")

        peer = lend(LentStore(Counted(1, SystemClock().now))).peer()
        with ThreadPoolExecutor(3 * lentstore.AT_ONCE) as threads:
            asked = [threads.submit(peer.get, "a") for _ in range(3 * lentstore.AT_ONCE)]
            for _ in range(lentstore.AT_ONCE):
                assert together.acquire(timeout=30)
            go.set()
            assert all(bytes(one.result(30)) == b"x" for one in asked)
        assert most[0] == lentstore.AT_ONCE

    def test_whom_it_cannot_serve_it_tells_to_come_again(
        self, lend: Lend, ram: Ram, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lentstore, "CALLERS", 0)
        with pytest.raises(Away, match="others are served") as said:
            lend(LentStore(ram)).peer().get("a")
        assert said.value.after == 1.0


def test_no_key_of_ours_is_sent(lend: Lend, ram: Ram) -> None:
    lender = lend(LentStore(ram))
    lender.end()
    with pytest.raises(BadKey):  # not Away: nobody was asked
        lender.peer().get("../a")
