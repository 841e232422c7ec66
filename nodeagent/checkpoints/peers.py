"""
Fetching a checkpoint from the agent of another node.

Called by: whoever wakes. Rule: a peer is not trusted: the signature is checked before anything is
written, each file's digest when it has arrived, and only the whole becomes visible. Rule: a lost
connection is taken up where it broke; without a byte for `Patience.silence` seconds it is lost.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import grpc

from kybernate.api import names as kyb
from kybernate.artifacts import names
from kybernate.artifacts import v0 as manifests
from kybernate.artifacts.faults import DAMAGE, Unusable
from kybernate.artifacts.v0 import File, Manifest
from kybernate.clients.clock import Clock
from kybernate.clients.pb import agent_pb2 as pb
from kybernate.clients.pb import agent_pb2_grpc as rpc
from kybernate.model.checkpoint import Fingerprint, Flaw
from kybernate.model.ids import NodeName
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints import verifying
from nodeagent.checkpoints.arriving import ELSEWHERE, PATIENT, Arriving, Patience, Pieces
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store, admit

SERVER = f"kyb-nodeagent.{kyb.SYSTEM_NAMESPACE}.svc"  # agents share one serving certificate
_OPTIONS = (
    ("grpc.ssl_target_name_override", SERVER),
    ("grpc.max_receive_message_length", names.MAX_MANIFEST + 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),  # a new try is a new connection
)

Channels = Callable[[NodeName], str]
"""HOST:PORT of a node's agent. Raises PeerAway where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to fetch. `signature` is the published one; `here` is where it is to wake."""

    namespace: str
    name: str
    signature: str = ""
    here: Fingerprint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Progress: bytes, and bytes per second so far."""

    done: int
    total: int
    rate: float

    @property
    def seconds_left(self) -> float:
        """At this rate; 0 where there is none yet."""
        return (self.total - self.done) / self.rate if self.rate else 0.0


Tell = Callable[[Fetched], None]


class Peers:
    """Thread safe; the same checkpoint is fetched once however many ask."""

    def __init__(
        self,
        store: Store,
        credentials: Callable[[], grpc.ChannelCredentials],
        address_of: Channels,
        clock: Clock,
        patience: Patience = PATIENT,
    ) -> None:
        """`credentials` are the agents' client certificate, asked for at each try."""
        self._store, self._clock, self._patience = store, clock, patience
        self._credentials, self._address_of = credentials, address_of

    def fetch(
        self,
        wanted: Wanted,
        node: NodeName,
        told: Tell = lambda _: None,
        cancelled: threading.Event | None = None,
        *,
        elsewhere: bool = False,
    ) -> Sealed:
        """It, verified, on this node; one that is here already is verified and answered, and
        replaced where it is damaged, once a good one has come. Where it can be had `elsewhere` too,
        a peer that does not answer at all is given up soon.

        Raises Unusable, NoRoom, NotSealed, Cancelled, PeerAway (after several tries).
        """
        cancelled = cancelled or threading.Event()
        with self._store.alone(wanted.namespace, wanted.name):
            try:
                return self._store.open(
                    wanted.namespace, wanted.name, wanted.here, wanted.signature
                )
            except Unusable as problem:
                if problem.reason is not Flaw.ABSENT and problem.reason not in DAMAGE:
                    raise
            patience = self._patience
            if elsewhere:
                patience = replace(patience, first=min(patience.first, ELSEWHERE))
            arriving = Arriving(
                lambda offset, signature: self._call(wanted, node, offset, signature),
                self._clock,
                patience,
                cancelled,
            )
            return self._fetch(wanted, node, told, arriving)

    def _fetch(self, wanted: Wanted, node: NodeName, told: Tell, arriving: Arriving) -> Sealed:
        try:
            content, signature = arriving.artifact()
            manifest = self._admitted(wanted, content, signature)
            began = self._clock.monotonic()
            with self._store.draft(
                wanted.namespace, wanted.name, manifest.size, replacing=True
            ) as draft:
                pieces = arriving.content(signature, manifest.size)
                for file, chunks in _files(manifest, self._counted(pieces, manifest, told)):
                    written = draft.write(file.path, chunks)
                    verifying.same_or_unusable(file, written.size, written.sha256)
                self._store.delete(wanted.namespace, wanted.name)  # a damaged one
                sealed = draft.install(content, manifest, signature)
        finally:
            arriving.close()
        seconds = self._clock.monotonic() - began
        get_logger().info(
            "checkpoint fetched", checkpoint=wanted.name, node=node, seconds=round(seconds, 3),
            bytes=manifest.size,
        )  # fmt: skip
        return sealed

    def _admitted(self, wanted: Wanted, content: bytes, signature: str) -> Manifest:
        """Raises Unusable, before a byte of its files is asked for."""
        self._store.keys.check(content, signature)
        manifest = manifests.decode(content)
        if (manifest.namespace, manifest.name) != (wanted.namespace, wanted.name):
            raise Unusable(Flaw.MISPLACED, f"{manifest.namespace}/{manifest.name}")
        admit(manifest, signature, wanted.here, wanted.signature)
        return manifest

    def _counted(
        self, pieces: Iterator[memoryview], manifest: Manifest, told: Tell
    ) -> Iterator[memoryview]:
        began, done = self._clock.monotonic(), 0
        for piece in pieces:
            done += len(piece)
            seconds = max(self._clock.monotonic() - began, 1e-9)
            told(Fetched(done=done, total=manifest.size, rate=done / seconds))
            yield piece

    def _call(self, wanted: Wanted, node: NodeName, offset: int, signature: str) -> Pieces:
        address = self._address_of(node)
        channel = grpc.secure_channel(address, self._credentials(), options=_OPTIONS)
        request = pb.FetchRequest(
            namespace=wanted.namespace,
            name=wanted.name,
            signature=signature or wanted.signature,
            offset=offset,
        )
        return Pieces(rpc.CheckpointsStub(channel).Fetch(request), channel.close)


def _files(
    manifest: Manifest, content: Iterator[memoryview]
) -> Iterator[tuple[File, Iterator[memoryview]]]:
    """Each file with its share of the bytes, to be taken before the next is asked for."""
    rest = memoryview(b"")

    def share(size: int) -> Iterator[memoryview]:
        nonlocal rest
        while size:
            rest = rest or next(content)
            piece, rest = rest[:size], rest[size:]
            size -= len(piece)
            yield piece

    for file in manifest.files:
        yield file, share(file.size)
