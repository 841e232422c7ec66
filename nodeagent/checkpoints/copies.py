"""
The Copies service: what is on this node.

Called by: gRPC, for the controller, `kyb registry rebuild` and other agents.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc

from kybernate.clients.pb import copies_pb2 as pb
from kybernate.clients.pb import copies_pb2_grpc as rpc
from kybernate.clients.registry import messages
from kybernate.model.artifact import Inventory

if TYPE_CHECKING:
    Context = grpc.ServicerContext
else:
    Context = object


class Copies(rpc.CopiesServicer):
    """As copies.proto says."""

    def __init__(self, inventories: Callable[[], Iterator[Inventory]]) -> None:
        self._inventories = inventories

    def List(  # noqa: N802
        self,
        request: pb.ListCopiesRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> Iterator[pb.CopiesHere]:
        """As the disk has them now."""
        for inventory in self._inventories():
            yield from messages.write_inventory(inventory)
