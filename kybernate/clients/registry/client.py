"""
The registry's calls, over a channel to it.

Called by: whoever has a `Registry`: see the package. Rule: several replicas are one channel; gRPC
goes to the next address when one does not answer, and the caller tries again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import grpc

from kybernate.clients.channels import FOUND_AGAIN
from kybernate.clients.pb import registry_pb2 as pb
from kybernate.clients.pb import registry_pb2_grpc as rpc
from kybernate.clients.registry import messages
from kybernate.clients.registry.errors import translated
from kybernate.model.artifact import Entry, Inventory, Occurrence, Row, Wanted
from kybernate.model.ids import NodeName

SHORT_S = 10.0  # a page, or some occurrences
LONG_S = 120.0  # an inventory
PAGE = 500
_PATIENCE = (
    *FOUND_AGAIN,
    ("grpc.keepalive_time_ms", 30_000),  # a replica whose node lost its power ends no connection
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of what was told. `epoch` is the database's: another one has forgotten."""

    epoch: str
    found: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows, and how to ask for the next ones (empty: there are none)."""

    rows: tuple[Row, ...]
    next: str


class Registry:
    """Thread safe. Nothing is sent before the first call. Every call raises RegistryAway,
    RegistryRefused."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._registry = rpc.RegistryStub(channel)

    @classmethod
    def at(
        cls, addresses: Sequence[str], credentials: grpc.ChannelCredentials, server_name: str = ""
    ) -> "Registry":
        """At the first of these `host:port` that answers, by mTLS. Several must be IPv4 addresses.

        `server_name` is what its certificate says, where that is not the address.
        """
        target = addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"
        named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
        return cls(grpc.secure_channel(target, credentials, options=(*named, *_PATIENCE)))

    def __enter__(self) -> "Registry":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every call and the connection."""
        self._channel.close()

    def record(self, occurrences: Sequence[Occurrence]) -> Taken:
        """Have them written down; they are on its disk when this returns."""
        request = pb.RecordRequest(occurrences=map(messages.write_occurrence, occurrences))
        with translated():
            return Taken(epoch=self._registry.Record(request, timeout=SHORT_S).epoch)

    def take_inventory(self, inventory: Inventory) -> Taken:
        """Have its rows of that place be as they are there."""
        with translated():
            told = messages.write_inventory(inventory)
            reply = self._registry.TakeInventory(told, timeout=LONG_S)
            return Taken(epoch=reply.epoch, found=reply.found, missing=reply.missing)

    def list(self, wanted: Wanted, size: int = PAGE, token: str = "") -> Page:
        """A page of rows, by namespace, name and signature."""
        request = messages.write_wanted(wanted, size, token)
        with translated():
            reply = self._registry.List(request, timeout=SHORT_S)
        return Page(rows=tuple(map(messages.read_row, reply.rows)), next=reply.next_page_token)

    def all(self, wanted: Wanted) -> Iterator[Row]:
        """All of them, page by page."""
        token = ""
        while True:
            page = self.list(wanted, token=token)
            yield from page.rows
            if not (token := page.next):
                return

    def get(self, namespace: str, name: str) -> tuple[Row, ...]:
        """What has this name now."""
        request = pb.GetRequest(namespace=namespace, name=name)
        with translated():
            return tuple(map(messages.read_row, self._registry.Get(request, timeout=SHORT_S).rows))

    def history(
        self, namespace: str = "", name: str = "", node: NodeName | None = None, after: int = 0
    ) -> Iterator[Entry]:
        """What happened, oldest first, page by page."""
        while True:
            request = pb.HistoryRequest(
                namespace=namespace, name=name, node=node, after=after, page_size=PAGE
            )
            with translated():
                reply = self._registry.History(request, timeout=SHORT_S)
            for message in reply.entries:
                yield messages.read_entry(message)
                after = message.number
            if not reply.more:
                return

    def watch(
        self, namespace: str = "", after: int = 0, timeout: float | None = None
    ) -> Iterator[Entry]:
        """The same from a number on, and everything that happens from now on."""
        request = pb.HistoryRequest(namespace=namespace, after=after)
        call = self._registry.Watch(request, timeout=timeout)
        try:
            with translated():
                for message in call:
                    yield messages.read_entry(message)
        finally:
            call.cancel()  # type: ignore[no-untyped-call]
