"""
What an inventory says that nobody had told. Pure.

Called by: the catalogues, in one transaction with what they read. Rule: what a node told of a copy
after the inventory was begun stands, so that taking one never undoes what happens meanwhile; both
times are by that node's clock.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

from kybernate.model.artifact import Identity, Inventory, Kind, Occurrence


def differences(
    inventory: Inventory, known: Iterable[Identity], told_at: Mapping[Identity, float]
) -> list[Occurrence]:
    """Found and missing copies. `known` are those of that place; `told_at` is when its node last
    told of each that it ever told of there."""
    before = set(known)
    there = {one.identity: one for one in inventory.artifacts}
    found = [
        _occurrence(inventory, Kind.FOUND, identity)
        for identity in sorted(there.keys() - before)
        if told_at.get(identity, 0.0) <= inventory.as_of
    ]
    missing = [
        _occurrence(inventory, Kind.MISSING, identity)
        for identity in sorted(before - there.keys())
        if told_at.get(identity, 0.0) <= inventory.as_of
    ]
    return [*found, *missing]


def _occurrence(inventory: Inventory, kind: Kind, identity: Identity) -> Occurrence:
    there = {one.identity: one for one in inventory.artifacts}
    place = inventory.place
    parts = (
        kind, inventory.as_of, place.node, place.tier,
        identity.namespace, identity.name, identity.signature,
    )  # fmt: skip
    return Occurrence(
        key="inventory:" + sha256(repr(parts).encode()).hexdigest(),
        at=inventory.as_of,
        kind=kind,
        identity=identity,
        place=place,
        artifact=there.get(identity),
    )
