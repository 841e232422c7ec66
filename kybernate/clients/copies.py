"""
An agent's Copies service: what is on its node, and having copies come and go.

Called by: `kyb registry rebuild`, `kyb gc`, the controller (TierPlacements, collecting the store),
agents (`verify`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import TracebackType
from typing import Any

import grpc

from kybernate.clients.agents import AgentAway, translated
from kybernate.clients.channels import FOUND_AGAIN
from kybernate.clients.pb import copies_pb2 as pb
from kybernate.clients.pb import copies_pb2_grpc as rpc
from kybernate.clients.registry import messages
from kybernate.model.artifact import Inventory

LONG_S = 120.0  # a scan of a disk with many checkpoints
BRING_S = 3600.0  # a copy of hundreds of GiB
VERIFY_S = 900.0
COLLECT_S = 4 * 3600.0  # every manifest is read, and ten thousands of packs deleted
MOST = 100_000  # artifacts; a disk has no room for as many


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a call moved: bytes of the checkpoint, seconds, and where it came from: a node, `object`
    (empty: from nowhere). `put` is how many bytes a store had to be given."""

    size: int
    seconds: float
    source: str = ""
    put: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A domain of the object store that was collected: counts of packs, bytes of those that went
    (or would), seconds until the next goes; `alone` says why nothing was done."""

    domain: str
    named: int = 0
    waiting: int = 0
    next_seconds: float = 0.0
    gone: int = 0
    size: int = 0
    alone: str = ""


Told = Callable[[int, int, float], None]
"""Hears bytes so far, bytes in all, seconds left. What it raises ends the call."""


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
        options = (("grpc.ssl_target_name_override", server_name), *FOUND_AGAIN)
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

    def bring(
        self,
        namespace: str,
        name: str,
        signature: str,
        sources: Sequence[str],
        told: Told = lambda *_: None,
        *,
        from_store: bool = False,
    ) -> Moved:
        """Have a copy there."""
        request = pb.BringRequest(
            copy=_ref(namespace, name, signature), sources=sources, from_store=from_store
        )
        with translated():
            return _followed(self._copies.Bring(request, timeout=BRING_S), told)

    def demote(
        self, namespace: str, name: str, signature: str, told: Told = lambda *_: None
    ) -> Moved:
        """Have the object store hold the copy that is there."""
        with translated():
            asked = _ref(namespace, name, signature)
            return _followed(self._copies.Demote(asked, timeout=BRING_S), told)

    def withdraw(self, namespace: str, name: str, signature: str) -> Moved:
        """Have the object store hold it no more."""
        began = time.monotonic()
        with translated():
            reply = self._copies.Withdraw(_ref(namespace, name, signature), timeout=VERIFY_S)
        return Moved(size=reply.bytes, seconds=time.monotonic() - began)

    def collect(self, grace: float, *, dry_run: bool = False) -> Iterator[Collected]:
        """Have the object store collected, each domain when it is done."""
        call = self._copies.Collect(
            pb.CollectRequest(grace_seconds=grace, dry_run=dry_run), timeout=COLLECT_S
        )
        try:
            with translated():
                for one in call:
                    yield Collected(
                        domain=one.domain, named=one.named, waiting=one.waiting,
                        next_seconds=one.next_seconds, gone=one.gone, size=one.bytes,
                        alone=one.alone,
                    )  # fmt: skip
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # of gRPC's

    def remove(self, namespace: str, name: str, signature: str) -> Moved:
        """Have none there."""
        began = time.monotonic()
        with translated():
            reply = self._copies.Remove(_ref(namespace, name, signature), timeout=VERIFY_S)
        return Moved(size=reply.bytes, seconds=time.monotonic() - began)

    def verify(self, namespace: str, name: str, signature: str) -> str:
        """What is wrong with the copy there; empty: nothing."""
        with translated():
            asked = _ref(namespace, name, signature)
            return self._copies.Verify(asked, timeout=VERIFY_S).flaw


def _followed(call: Any, told: Told) -> Moved:
    """To its end. What `told` raises ends it there too."""
    began = time.monotonic()
    try:
        for step in call:
            if step.done:
                return Moved(
                    size=step.bytes_total,
                    seconds=time.monotonic() - began,
                    source=step.source,
                    put=step.bytes_moved,
                )
            told(step.bytes_done, step.bytes_total, step.seconds_left)
    finally:
        call.cancel()
    raise AgentAway("the agent ended its answer without an outcome")


def _ref(namespace: str, name: str, signature: str) -> pb.CopyRef:
    return pb.CopyRef(namespace=namespace, name=name, signature=signature)


def _read(told: list[pb.CopiesHere]) -> Iterator[Inventory]:
    for _, pieces in groupby(told, key=lambda piece: piece.tier):
        yield messages.read_inventory(pieces, MOST)
