"""
Every place where objects are kept, under one contract; the decorators too.

Real: the folder (on this machine's disk), the object server (SeaweedFS, one for a session), the
agents' servicer behind gRPC and mutual TLS on loopback. Told: the clock.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from kybernate.clients.pb import peerstore_pb2_grpc as rpc
from kybernate.runtime.clock import SystemClock
from kybernate.stores.below import Below
from kybernate.stores.bucket import Access, Bucket
from kybernate.stores.limited import Limited
from kybernate.stores.link import Link, Yielding
from kybernate.stores.metered import Metered
from kybernate.stores.nvme import Nvme
from kybernate.stores.port import Store
from kybernate.stores.ram import Ram
from kybernate.stores.retrying import Retrying
from kybernate.stores.verified import Verified
from nodeagent.checkpoints.lentstore import LentStore
from testbed.lentstores import Lender
from testbed.objectserver import KEY_ID, SECRET, ObjectServer

GIB = 2**30


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """One for all tests; each has a prefix of its own."""
    with ObjectServer.start(tmp_path_factory.mktemp("objects")) as server:
        server.make_bucket("kyb")
        yield server


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> Callable[..., Bucket]:
    """Makes one with a new prefix."""

    def make(**changed: str) -> Bucket:
        server: ObjectServer = request.getfixturevalue("object_server")
        access = {
            "bucket": "kyb",
            "endpoint": server.url,
            "key_id": KEY_ID,
            "secret": SECRET,
            **changed,
        }
        return Bucket(Access(prefix=uuid.uuid4().hex, **access))

    return make


Lend = Callable[[rpc.PeerStoreServicer], Lender]


@pytest.fixture
def lend(tmp_path: Path) -> Iterator[Lend]:
    """`lend(servicer)`: at an address of its own."""
    made: list[Lender] = []

    def make(servicer: rpc.PeerStoreServicer) -> Lender:
        def add(server: grpc.Server) -> None:
            rpc.add_PeerStoreServicer_to_server(servicer, server)

        made.append(Lender(tmp_path / f"lender-{len(made)}", add))
        return made[-1]

    yield make
    for one in made:
        one.end()


def _ram() -> Ram:
    return Ram(GIB, SystemClock().now)


@pytest.fixture(
    params=[
        "ram",
        "nvme",
        "nvme-buffered",
        "object",
        "peer",
        "peer-of-nvme",
        "peer-decorated",
        "retrying",
        "limited",
        "verified",
        "metered",
        "yielding",
        "below",
    ]
)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, bucket: Callable[..., Bucket], lend: Lend
) -> Store:
    """Each of them."""
    clock, ended = SystemClock(), threading.Event()

    def peer(of: Store) -> Store:
        return lend(LentStore(of, writable=True, below=("",))).peer()

    def decorated(one: Store) -> Store:
        limited = Limited(Metered(one, clock, lambda _: None), clock, ended, at_once=4, rate=1e12)
        return Verified(Retrying(limited, clock, ended))

    made: dict[str, Callable[[], Store]] = {
        "ram": _ram,
        "nvme": lambda: Nvme(tmp_path / "store"),
        "nvme-buffered": lambda: Nvme(tmp_path / "store", direct=False),
        "object": bucket,
        "peer": lambda: peer(_ram()),
        "peer-of-nvme": lambda: peer(Nvme(tmp_path / "store")),
        "peer-decorated": lambda: decorated(peer(Nvme(tmp_path / "store"))),
        "retrying": lambda: Retrying(_ram(), clock, ended),
        "limited": lambda: Limited(_ram(), clock, ended, at_once=2, rate=1e12),
        "verified": lambda: Verified(_ram()),
        "yielding": lambda: Yielding(_ram(), Link()),
        "below": lambda: Below(_ram(), "a-part"),
        "metered": lambda: Metered(_ram(), clock, lambda _: None),
    }
    return made[request.param]()
