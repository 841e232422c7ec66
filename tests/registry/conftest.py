"""
The registry: what it keeps, and what it answers.

Real: SQLite, PostgreSQL (one server a session, a database for each test), gRPC, mutual TLS,
processes where a test kills one. Faked: nothing; artifacts are made up.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from controller import pki
from controller.certificates import Want
from kybernate.clients.registry import Registry
from kybernate.model.artifact import Artifact, Identity, Kind, Occurrence, Place
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.tls import TlsFiles
from registry.catalogue import Catalogue
from registry.doors import Server
from registry.memory import Memory
from registry.service import Service
from registry.sql import Sql
from testbed import postgres
from testbed.postgres import Postgres

_serial = count(1)


def place(node: str = "node-a", tier: Tier = Tier.NVME) -> Place:
    return Place(node=NodeName(node), tier=tier)


def artifact(name: str = "llama-1", **changes: Any) -> Artifact:
    """Of a workload that was sealed on node-a."""
    namespace = changes.pop("namespace", "default")
    signature = changes.pop("signature", f"ed25519:aa:{name}")
    whole = Artifact(
        identity=Identity(namespace=namespace, name=name, signature=signature),
        format="v0",
        workload="statefulset.llama.0",
        pod="llama-0",
        node=NodeName("node-a"),
        sealed_at=1_769_860_800.5,
        size=42 * 2**30,
        fingerprint="sha256:aa",
        made_in={"product": "NVIDIA H100", "driver": "580.65.06"},
        labels={"app": "llama"},
    )
    return replace(whole, **changes)


def told(kind: Kind, of: Artifact, where: Place | None = None, **changes: Any) -> Occurrence:
    """What an agent tells; each with a key of its own."""
    comes = kind in {Kind.SEALED, Kind.COPIED, Kind.FOUND}
    whole = Occurrence(
        key=f"test-{next(_serial)}",
        at=1_769_860_900.0,
        kind=kind,
        identity=of.identity,
        place=where or place(),
        artifact=of if comes else None,
    )
    return replace(whole, **changes)


@pytest.fixture(name="artifact")
def artifact_fixture() -> Callable[..., Artifact]:
    """`artifact("llama-2", gold=True)`."""
    return artifact


@pytest.fixture(name="told")
def told_fixture() -> Callable[..., Occurrence]:
    """`told(Kind.SEALED, artifact())`."""
    return told


@pytest.fixture(name="place")
def place_fixture() -> Callable[..., Place]:
    """`place("node-b")`."""
    return place


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A real one. Skips, with the reason, where this machine cannot run one."""
    problem = postgres.why_not()
    if problem:
        pytest.skip(problem)
    with Postgres.start(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """An empty database."""
    name = f"test_{next(_serial)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    return postgres_server.url.removesuffix("postgres") + name


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    """Every implementation, empty."""
    made = _make(request, tmp_path)
    yield made
    made.close()


def _make(request: pytest.FixtureRequest, folder: Path) -> Catalogue:
    if request.param == "memory":
        return Memory()
    if request.param == "sqlite":
        return Sql(make_url(f"sqlite:///{folder}/registry.db"))
    url = make_url(request.getfixturevalue("postgres_url"))
    return Sql(url.set(drivername="postgresql+psycopg"))


NAME = "kyb-registry.kyb-system.svc"


class Served:
    """A registry over mutual TLS, and identities to call it with. It may be lost, and come back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = pki.make_authority(SystemClock().now(), 7200.0)
        self._server: Server | None = None
        self.port = 0
        self.catalogue: Catalogue = Memory()
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def as_(self, name: str) -> Registry:
        """A client with this name in its certificate."""
        tls = self.identity(name, client=True)
        return Registry.at([self.address], tls.grpc_channel_credentials(), NAME)

    def start(self, catalogue: Catalogue | None = None) -> None:
        """At the address it had before. With another catalogue: what was told is forgotten."""
        self.catalogue = catalogue or self.catalogue
        self._server = Server(Service(self.catalogue))
        self._server.start(f"127.0.0.1:{self.port}", self.identity(NAME))
        self.port = self._server.port

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def identity(self, name: str, *, client: bool = False) -> TlsFiles:
        folder = self._folder / name
        if not folder.exists():
            want = Want(secret=name, names=frozenset({name}), client=client)
            pair = pki.make_leaf(self._authority, want, now=SystemClock().now(), lifetime=3600.0)
            folder.mkdir()
            (folder / "ca.crt").write_bytes(self._authority.certificate)
            (folder / "tls.crt").write_bytes(pair.certificate)
            (folder / "tls.key").write_bytes(pair.key)
        return TlsFiles(folder)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """One in memory."""
    made = Served(tmp_path)
    yield made
    made.stop()
