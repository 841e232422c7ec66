"""
Everything about checkpoints on this node, put together. Called by the agent's `process`.

Rule: nothing here waits for the API server. Where no keys are given the node makes one of its own,
and where no client certificate is given nothing is fetched: both fit a single node only, and are
said at the start.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from kybernate.clients.agents import AgentAway
from kybernate.clients.checkpoints import Checkpoints
from kybernate.clients.clock import Clock
from kybernate.clients.copies import Copies as CopiesClient
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.pb.copies_pb2 import CopyRef
from kybernate.clients.reaching import SERVER
from kybernate.clients.resources import GPUNODES
from kybernate.model.ids import NodeName
from kybernate.runtime.logs import get_logger
from kybernate.runtime.registryline import RegistryLine
from kybernate.runtime.tls import TlsFiles
from nodeagent.checkpoints import rows
from nodeagent.checkpoints.copies import Copies, Means
from nodeagent.checkpoints.faults import PeerAway
from nodeagent.checkpoints.following import Following
from nodeagent.checkpoints.lentstore import LentStore
from nodeagent.checkpoints.objects import Given, Measured, Objects
from nodeagent.checkpoints.peers import Peers
from nodeagent.checkpoints.publishing import Publisher
from nodeagent.checkpoints.registering import Registering
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Folders, the limit in bytes, where the registry is (nowhere: there is none), and the object
    store. `memory` is a folder of a tmpfs for what is not sealed, `wrapping` has keys that wrap in
    place of those of `keys`."""

    folder: Path
    limit: int
    memory: Path | None = None
    keys: Path | None = None
    wrapping: Path | None = None
    client_tls: Path | None = None
    registry: tuple[str, ...] = ()
    objects: Given = field(default_factory=Given)


class Artifacts:
    """`start` once, `stop` at the end; the parts are used directly."""

    def __init__(
        self,
        place: Place,
        kube: Kube,
        node: NodeName,
        clock: Clock,
        measured: Measured = lambda *_: None,
    ) -> None:
        """`measured` hears how fast the object store is. Raises OSError, ValueError, BadPlace where
        folders, keys, certificates or the store's place cannot be used."""
        self._kube = kube
        self._client = TlsFiles(place.client_tls) if place.client_tls else None
        own = place.folder / "keys"
        given = place.keys
        keys = Keys(given, place.wrapping, own) if given else Keys.own(own, place.wrapping)
        self.store = Store(place.folder, keys, place.limit, memory=place.memory)
        self.claims = Checkpoints(kube, node)
        self.publisher = Publisher(self.store, self.claims, clock)
        self.peers = Peers(self.store, self._credentials, self._address_of, clock)
        self.lent_store = LentStore(self.store.shelf.store)
        self.objects = Objects(place.objects, self.store, clock, measured)
        self._line, self._registering = self._registry(place, node, clock)
        reader = rows.of_store(self.store)
        self.copies = Copies(
            Means(
                inventories=lambda: rows.inventories(node, reader, clock.now, self.objects),
                store=self.store,
                peers=self.peers,
                claims=self.claims,
                publisher=self.publisher,
                verify=self._verified,
                objects=self.objects,
            )
        )
        self._following = Following(kube, self.store, self.objects, clock)
        if not (place.keys and place.client_tls):
            get_logger().warning("checkpoints stay on this node: --checkpoint-keys and "
                                 "--client-tls-dir are needed to share them")  # fmt: skip

    def start(self) -> None:
        """Tell the cluster what is here; listen for what is deleted."""
        self.publisher.start()
        self._following.start()
        threading.Thread(target=self._carry_over, name="carrying-over", daemon=True).start()

    def _carry_over(self) -> None:
        """Then the registry is told what is here, which is all of it."""
        self.store.carry_over()
        if self._registering:
            self._registering.start()

    def stop(self) -> None:
        """End; what could not be told is told after the next start."""
        self.copies.stop()
        self._following.stop()
        self.publisher.stop()
        if self._registering and self._line:
            self._registering.stop()
            self._line.close()

    def _verified(self, node: NodeName, ref: CopyRef) -> str:
        """As `copies.Verify` says."""
        try:
            address, credentials = self._address_of(node), self._credentials()
        except PeerAway as away:
            raise AgentAway(str(away)) from away
        with CopiesClient.in_cluster(address, credentials, SERVER) as there:
            return there.verify(ref.namespace, ref.name, ref.signature)

    def _registry(
        self, place: Place, node: NodeName, clock: Clock
    ) -> tuple[RegistryLine | None, Registering | None]:
        if not place.registry:
            return None, None
        if self._client is None:
            get_logger().warning("the registry is not told: it knows agents by --client-tls-dir")
            return None, None
        line = RegistryLine(place.registry, self._client)
        telling = Registering(node, rows.of_store(self.store), line, clock, self.objects)
        self.store.listener = telling.changed
        self.objects.listener = telling.moved
        return line, telling

    def _credentials(self) -> grpc.ChannelCredentials:
        if self._client is None:
            raise PeerAway("this agent has no client certificate (--client-tls-dir)")
        return self._client.grpc_channel_credentials()

    def _address_of(self, node: NodeName) -> str:
        """Raises PeerAway, ApiError."""
        try:
            status = self._kube.get(GPUNODES, node).get("status") or {}
        except NotFound:
            raise PeerAway(f"no agent has reported from node {node}") from None
        endpoint = str(status.get("endpoint") or "")
        if not endpoint:
            raise PeerAway(f"the agent of {node} does not say where it is reached (--advertise)")
        return endpoint
