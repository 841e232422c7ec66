"""Values as rows of the tables, and back. Called by: `sql`. Pure."""

from typing import Any

import orjson
from sqlalchemy import Row as Found

from kybernate.model.artifact import Artifact, Check, Entry, Identity, Kind, Occurrence, Place
from kybernate.model.ids import NodeName
from kybernate.model.tier import Tier


def write_identity(identity: Identity) -> dict[str, str]:
    return {
        "namespace": identity.namespace,
        "name": identity.name,
        "signature": identity.signature,
    }


def read_identity(row: Found[Any]) -> Identity:
    return Identity(namespace=row.namespace, name=row.name, signature=row.signature)


def write_place(place: Place) -> dict[str, str]:
    return {"node": place.node, "tier": place.tier.value}


def read_place(row: Found[Any]) -> Place:
    return Place(node=NodeName(row.node), tier=Tier(row.tier))


def read_check(row: Found[Any]) -> Check:
    return Check(at=row.at, flaw=row.flaw)


def write_artifact(one: Artifact) -> dict[str, Any]:
    return {**write_identity(one.identity), **_facts(one)} | {
        "made_in": _dumped(dict(one.made_in)),
        "labels": _dumped(dict(one.labels)),
    }


def read_artifact(row: Found[Any]) -> Artifact:
    facts = dict(row._mapping)
    facts["made_in"], facts["labels"] = orjson.loads(row.made_in), orjson.loads(row.labels)
    return _artifact(facts)


def write_occurrence(one: Occurrence) -> dict[str, Any]:
    artifact = None if one.artifact is None else _dumped(_whole(one.artifact))
    return {
        "key": one.key,
        "at": one.at,
        "kind": one.kind.value,
        **write_identity(one.identity),
        **write_place(one.place),
        "detail": one.detail,
        "artifact": artifact,
    }


def read_entry(row: Found[Any]) -> Entry:
    artifact = None if row.artifact is None else _artifact(orjson.loads(row.artifact))
    return Entry(
        number=row.number,
        occurrence=Occurrence(
            key=row.key,
            at=row.at,
            kind=Kind(row.kind),
            identity=read_identity(row),
            place=read_place(row),
            artifact=artifact,
            detail=row.detail,
        ),
    )


def _whole(one: Artifact) -> dict[str, Any]:
    maps = {"made_in": dict(one.made_in), "labels": dict(one.labels)}
    return {**write_identity(one.identity), **_facts(one), **maps}


def _facts(one: Artifact) -> dict[str, Any]:
    names = (
        "format", "workload", "pod", "node", "sealed_at", "size", "gold", "boot_bound",
        "fingerprint",
    )  # fmt: skip
    return {name: getattr(one, name) for name in names}


def _artifact(facts: dict[str, Any]) -> Artifact:
    given = dict(facts)
    identity = Identity(**{name: given.pop(name) for name in ("namespace", "name", "signature")})
    return Artifact(identity=identity, **given)


def _dumped(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
