"""
An agent's Copies service: what is on its node. Called by: `kyb registry rebuild`.
"""

from collections.abc import Iterator
from itertools import groupby
from types import TracebackType

import grpc

from kybernate.clients.agents import translated
from kybernate.clients.pb import copies_pb2 as pb
from kybernate.clients.pb import copies_pb2_grpc as rpc
from kybernate.clients.registry import messages
from kybernate.model.artifact import Inventory

LONG_S = 120.0  # a scan of a disk with many checkpoints
MOST = 100_000  # artifacts; a disk has no room for as many


class Copies:
    """Over a channel to an agent. Every call raises AgentAway, AgentRefused."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._copies = rpc.CopiesStub(channel)

    @classmethod
    def in_cluster(
        cls, address: str, credentials: grpc.ChannelCredentials, server_name: str
    ) -> "Copies":
        """At `host:port`, by mTLS; `server_name` is what its certificate says."""
        options = (("grpc.ssl_target_name_override", server_name),)
        return cls(grpc.secure_channel(address, credentials, options=options))

    def __enter__(self) -> "Copies":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    def inventories(self) -> tuple[Inventory, ...]:
        """One for each tier. Raises ValueError for an answer that cannot be read, too."""
        with translated():
            told = list(self._copies.List(pb.ListCopiesRequest(), timeout=LONG_S))
        return tuple(_read(told))


def _read(told: list[pb.CopiesHere]) -> Iterator[Inventory]:
    for _, pieces in groupby(told, key=lambda piece: piece.tier):
        yield messages.read_inventory(pieces, MOST)
