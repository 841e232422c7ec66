"""
Values of `model/artifact.py` as messages, and back. Pure.

Called by: the registry's client and server, the agents' Copies service and its client. Rule: what
cannot be read raises ValueError with the field, its value and what is accepted.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from typing import TypeVar

from kybernate.clients.pb import copies_pb2, registry_pb2
from kybernate.model.artifact import (
    COMES,
    Artifact,
    Check,
    Entry,
    Identity,
    Inventory,
    Kind,
    Occurrence,
    Place,
    Row,
    Wanted,
)
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier

E = TypeVar("E", bound=StrEnum)

TOGETHER = 500  # artifacts in one message: about half a MiB
LONGEST = 1024  # characters of a field


def write_artifact(artifact: Artifact) -> copies_pb2.Artifact:
    return copies_pb2.Artifact(
        namespace=artifact.identity.namespace,
        name=artifact.identity.name,
        signature=artifact.identity.signature,
        format=artifact.format,
        workload=artifact.workload,
        pod=artifact.pod,
        node=artifact.node,
        sealed_at=artifact.sealed_at,
        size=artifact.size,
        gold=artifact.gold,
        boot_bound=artifact.boot_bound,
        fingerprint=artifact.fingerprint,
        made_in=artifact.made_in,
        labels=artifact.labels,
    )


def read_artifact(message: copies_pb2.Artifact) -> Artifact:
    return Artifact(
        identity=_identity(message),
        format=_named(message.format, "artifact.format"),
        workload=message.workload,
        pod=message.pod,
        node=NodeName(message.node),
        sealed_at=message.sealed_at,
        size=message.size,
        gold=message.gold,
        boot_bound=message.boot_bound,
        fingerprint=message.fingerprint,
        made_in=dict(message.made_in),
        labels=dict(message.labels),
    )


def write_inventory(inventory: Inventory) -> Iterator[copies_pb2.CopiesHere]:
    """At least one message."""
    rest, first = iter(inventory.artifacts), True
    while (some := list(islice(rest, TOGETHER))) or first:
        first = False
        yield copies_pb2.CopiesHere(
            node=inventory.place.node,
            tier=inventory.place.tier,
            as_of=inventory.as_of,
            artifacts=map(write_artifact, some),
        )


def read_inventory(messages: Iterable[copies_pb2.CopiesHere], most: int) -> Inventory:
    """Raises ValueError for none, more than `most` artifacts, or messages that contradict."""
    first: copies_pb2.CopiesHere | None = None
    found: list[Artifact] = []
    for message in messages:
        first = first or message
        if (message.node, message.tier, message.as_of) != (first.node, first.tier, first.as_of):
            raise ValueError("node, tier, as_of: another than before (expected one inventory)")
        found += map(read_artifact, message.artifacts)
        if len(found) > most:
            raise ValueError(f"artifacts: more than {most} (expected at most as many)")
    if first is None:
        raise ValueError("inventory: nothing (expected at least one message)")
    return Inventory(
        place=read_place(first.node, first.tier), as_of=first.as_of, artifacts=tuple(found)
    )


def read_place(node: str, tier: str) -> Place:
    place = Place(node=NodeName(node), tier=_one_of(Tier, tier, "tier"))
    if (place.tier is Tier.OBJECT) == bool(node):
        raise ValueError(f"node: {node!r} (expected one, but for tier object, which has none)")
    return place


def write_occurrence(one: Occurrence) -> registry_pb2.Occurrence:
    return registry_pb2.Occurrence(
        key=one.key,
        at=one.at,
        kind=one.kind,
        namespace=one.identity.namespace,
        name=one.identity.name,
        signature=one.identity.signature,
        node=one.place.node,
        tier=one.place.tier,
        artifact=None if one.artifact is None else write_artifact(one.artifact),
        detail=one.detail,
    )


def read_occurrence(message: registry_pb2.Occurrence) -> Occurrence:
    kind = _one_of(Kind, message.kind, "kind")
    artifact = read_artifact(message.artifact) if message.HasField("artifact") else None
    identity = _identity(message)
    if (kind in COMES) != (artifact is not None):
        raise ValueError(f"artifact: expected with {', '.join(sorted(COMES))}, and only there")
    if artifact is not None and artifact.identity != identity:
        raise ValueError("artifact: another than the occurrence is about")
    return Occurrence(
        key=_named(message.key, "key"),
        at=message.at,
        kind=kind,
        identity=identity,
        place=read_place(message.node, message.tier),
        artifact=artifact,
        detail=message.detail[:LONGEST],
    )


def write_entry(entry: Entry) -> registry_pb2.Entry:
    return registry_pb2.Entry(number=entry.number, occurrence=write_occurrence(entry.occurrence))


def read_entry(message: registry_pb2.Entry) -> Entry:
    return Entry(number=message.number, occurrence=read_occurrence(message.occurrence))


def write_row(row: Row) -> registry_pb2.Row:
    return registry_pb2.Row(
        artifact=write_artifact(row.artifact),
        copies=[_copy(place, row.checks.get(place)) for place in row.copies],
    )


def read_row(message: registry_pb2.Row) -> Row:
    places = [read_place(copy.node, copy.tier) for copy in message.copies]
    checks = {
        place: Check(at=copy.checked_at, flaw=copy.flaw)
        for place, copy in zip(places, message.copies, strict=True)
        if copy.checked_at
    }
    return Row(artifact=read_artifact(message.artifact), copies=tuple(places), checks=checks)


def write_wanted(wanted: Wanted, size: int, token: str) -> registry_pb2.ListRequest:
    return registry_pb2.ListRequest(
        namespace=wanted.namespace,
        workload=wanted.workload,
        node=wanted.node,
        tier=wanted.tier or "",
        gold=wanted.gold,
        fingerprint=wanted.fingerprint,
        sealed_from=wanted.sealed_from,
        sealed_until=wanted.sealed_until,
        page_size=size,
        page_token=token,
    )


def read_wanted(message: registry_pb2.ListRequest) -> Wanted:
    return Wanted(
        namespace=message.namespace,
        workload=message.workload,
        node=NodeName(message.node) if message.HasField("node") else None,
        tier=_one_of(Tier, message.tier, "tier") if message.tier else None,
        gold=message.gold if message.HasField("gold") else None,
        fingerprint=message.fingerprint,
        sealed_from=message.sealed_from,
        sealed_until=message.sealed_until,
    )


def _copy(place: Place, check: Check | None) -> registry_pb2.Copy:
    return registry_pb2.Copy(
        node=place.node,
        tier=place.tier,
        checked_at=check.at if check else 0.0,
        flaw=check.flaw if check else "",
    )


def _identity(message: copies_pb2.Artifact | registry_pb2.Occurrence) -> Identity:
    return Identity(
        namespace=_named(message.namespace, "namespace"),
        name=_named(message.name, "name"),
        signature=_named(message.signature, "signature"),
    )


def _named(text: str, field: str) -> str:
    if not text or len(text) > LONGEST:
        raise ValueError(f"{field}: {text[:80]!r} (expected 1 to {LONGEST} characters)")
    return text


def _one_of(kind: type[E], value: str, field: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{field}: {value[:80]!r} (expected one of {', '.join(kind)})") from None
