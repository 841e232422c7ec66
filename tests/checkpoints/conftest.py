"""
Checkpoint artifacts on a disk of the test's own.

Real: files, keys, signatures, gRPC over mutual TLS on loopback. Faked: who makes checkpoints (some
files of known bytes), and the API server where a test does not ask for the real one.
"""

import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from controller import pki
from controller.certificates import Want
from kybernate.api import names
from kybernate.artifacts.facts import Facts, GpuPart
from kybernate.clients.backoff import Pace
from kybernate.clients.checkpoints import Checkpoints
from kybernate.clients.copies import Copies as Client
from kybernate.clients.pb import copies_pb2_grpc, peerstore_pb2_grpc
from kybernate.clients.reaching import SERVER
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import NodeName, PodUid
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.tls import TlsFiles
from kybernate.testing.fakekube import FakeKube
from nodeagent.checkpoints.copies import Copies, Means
from nodeagent.checkpoints.lentstore import LentStore
from nodeagent.checkpoints.objects import Given, Objects
from nodeagent.checkpoints.peers import Patience, Peers
from nodeagent.checkpoints.publishing import Publisher
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

MIB = 2**20
NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
HERE = Fingerprint(
    kernel="6.1.0-18-amd64",
    architecture="x86_64",
    boot="b1",
    image="sha256:aa",
    command=("python", "serve.py"),
    mechanism="simulated",
    cpu=frozenset({"avx", "avx2"}),
    product="Simulated 80GB",
    driver="580.65.06",
)
FILES = {
    "image/pages-1.img": bytes(range(256)) * 4096,
    "image/inventory.img": b"inventory",
    "image/empty.img": b"",
    "rootfs.tar": b"tar" * 1000,
}
GPU = b"contents of the card" * 1000


def facts(**changes: Any) -> Facts:
    """Of a workload that was sealed on node-a."""
    whole = Facts(
        workload="statefulset.llama.0",
        pod="llama-0",
        pod_uid=PodUid("u1"),
        container="model",
        node=NodeName("node-a"),
        sealed_at=1_769_860_800.0,
        made_in=HERE,
        parts=(GpuPart(name="s0", card=0, size=40 * MIB, digest="aa", path="gpu/0"),),
        labels={"app": "llama"},
        more={"criu": "4.2.1"},
    )
    return replace(whole, **changes)


@pytest.fixture(name="facts")
def facts_fixture() -> Callable[..., Facts]:
    """`facts(gold=True)`."""
    return facts


@pytest.fixture
def here() -> Fingerprint:
    """What `facts` were made in."""
    return HERE


@pytest.fixture
def keys(tmp_path: Path, wrapping: Path) -> Keys:
    """The cluster's."""
    return Keys.own(tmp_path / "keys", wrapping)


@pytest.fixture
def new_store(tmp_path: Path, keys: Keys) -> Callable[..., Store]:
    """`new_store("node-b")`: the store of that node, as it is after a start of its agent."""

    def make(node: str = "node-a", limit: int = 64 * MIB, **how: Any) -> Store:
        return Store(tmp_path / node, how.pop("keys", keys), limit, **{"spare": 0, **how})

    return make


@pytest.fixture
def store(new_store: Callable[..., Store]) -> Store:
    """Of node-a."""
    return new_store()


@pytest.fixture
def seal() -> Callable[..., Sealed]:
    """`seal(store)`: a small checkpoint, as a story would make it."""

    def make(store: Store, name: str = NAME, **changes: Any) -> Sealed:
        with store.draft(NAMESPACE, name, like=facts(**changes)) as draft:
            for path, content in FILES.items():
                (draft.folder / path).parent.mkdir(exist_ok=True)
                (draft.folder / path).write_bytes(content)
            draft.write("gpu/0", [GPU[:7], GPU[7:]])
            return draft.seal(facts(**changes))

    return make


@pytest.fixture
def rot(tmp_path: Path) -> Callable[..., None]:
    """`rot(sealed)`: a bit of what node-a has of its contents flips; once more, and it is back."""

    def flip(sealed: Sealed, node: str = "node-a", at: int = 100) -> None:
        path = tmp_path / node / sealed.manifest.pack_keys[0]
        content = bytearray(path.read_bytes())
        content[at] ^= 0x10
        path.write_bytes(content)

    return flip


@pytest.fixture
def left() -> Callable[[Path], list[str]]:
    """Every file and link below a folder, but for the keys of domains."""
    return lambda folder: sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_dir() and path.parent.name != "keys"
    )


class Agents:
    """Agents that lend to each other over mutual TLS, and identities to call them with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = pki.make_authority(SystemClock().now(), 7200.0)
        self._serving = self.identity(SERVER)
        self.client = self.identity(names.AGENT_CLIENT, client=True)
        self.addresses: dict[str, str] = {}
        self._servers: dict[str, grpc.Server] = {}

    def identity(self, name: str, *, client: bool = False) -> TlsFiles:
        """Certificates for a server or a client of this name."""
        want = Want(secret=name, names=frozenset({name}), client=client)
        pair = pki.make_leaf(self._authority, want, now=SystemClock().now(), lifetime=3600.0)
        folder = self._folder / name
        folder.mkdir()
        (folder / "ca.crt").write_bytes(self._authority.certificate)
        (folder / "tls.crt").write_bytes(pair.certificate)
        (folder / "tls.key").write_bytes(pair.key)
        return TlsFiles(folder)

    def lend(self, node: str, servicer: Any, port: int = 0) -> None:
        """Serve at an address of its own; again at the same one where a port is given."""
        server = grpc.server(futures.ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        peerstore_pb2_grpc.add_PeerStoreServicer_to_server(servicer, server)
        credentials = self._serving.grpc_server_credentials()
        bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        server.start()
        self.addresses[node] = f"127.0.0.1:{bound}"
        self._servers[node] = server

    def end(self, node: str) -> None:
        """Its connections break."""
        self._servers.pop(node).stop(None).wait()

    def peers(self, store: Store, client: TlsFiles | None = None, **patience: Any) -> Peers:
        """What the agent with this store fetches with."""
        told = client or self.client
        return Peers(
            store,
            told.grpc_channel_credentials,
            lambda node: self.addresses[node],
            SystemClock(),
            Patience(**{"pace": Pace(first=0.05, longest=0.2), **patience}),
        )

    def close(self) -> None:
        for node in tuple(self._servers):
            self.end(node)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    """None yet."""
    made = Agents(tmp_path)
    yield made
    made.close()


@pytest.fixture
def lent(agents: Agents, store: Store) -> Agents:
    """node-a lends what is in `store`."""
    agents.lend("node-a", LentStore(store.shelf.store))
    return agents


class Node:
    """One node's agent, as far as checkpoints go."""

    def __init__(
        self, name: str, store: Store, agents: "Agents", kube: FakeKube, objects: Objects
    ) -> None:
        self.name, self.store, self._agents = NodeName(name), store, agents
        self.objects = objects
        self.claims = claims = Checkpoints(kube, self.name)
        self.publisher = Publisher(store, claims, SystemClock())
        self.peers = agents.peers(store, tries=3)
        means = Means(
            inventories=lambda: iter(()),
            store=store,
            peers=self.peers,
            claims=claims,
            publisher=self.publisher,
            verify=lambda node, ref: self.client(node).verify(
                ref.namespace, ref.name, ref.signature
            ),
            objects=objects,
        )
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        copies_pb2_grpc.add_CopiesServicer_to_server(Copies(means), self._server)
        lent = LentStore(store.shelf.store)
        peerstore_pb2_grpc.add_PeerStoreServicer_to_server(lent, self._server)
        credentials = agents._serving.grpc_server_credentials()
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()
        agents.addresses[name] = f"127.0.0.1:{port}"

    def client(self, node: str = "") -> Client:
        address = self._agents.addresses[node or self.name]
        return Client.in_cluster(address, self._agents.client.grpc_channel_credentials(), SERVER)

    def stop(self) -> None:
        self._server.stop(None).wait()
        self.publisher.stop()


@pytest.fixture
def kube() -> FakeKube:
    """Empty."""
    return FakeKube()


@pytest.fixture
def bucket() -> Any:
    """The store that all nodes are given; None: none is. A test's own stands in its place."""
    return None


@pytest.fixture
def wrapping(tmp_path: Path) -> Path:
    """The folder of wrapping keys."""
    folder = tmp_path / "wrapping"
    folder.mkdir()
    (folder / "wrapping.key").write_text(b64encode(os.urandom(32)).decode())
    return folder


@pytest.fixture
def nodes(
    agents: Agents, kube: FakeKube, new_store: Callable[..., Store], bucket: Any
) -> Iterator[Callable[[str], Node]]:
    """`nodes("node-a")`: that node's agent, as far as checkpoints go."""
    made: dict[str, Node] = {}

    def node(name: str) -> Node:
        if name not in made:
            here = new_store(name, limit=512 * MIB)
            objects = Objects(Given(), here, SystemClock(), store=bucket)
            made[name] = Node(name, here, agents, kube, objects)
        return made[name]

    yield node
    for one in made.values():
        one.stop()


@pytest.fixture
def sealed(nodes: Callable[[str], Node], seal: Callable[..., Sealed]) -> Sealed:
    """On node-a, published."""
    one = nodes("node-a")
    made = seal(one.store)
    one.publisher.publish(made)
    assert one.publisher.flush(30)
    return made
