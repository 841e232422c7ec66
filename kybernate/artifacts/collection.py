"""
What writers and collectors of a store tell each other by objects in it: docs/decisions/0021. Pure.

    domains/D/intents/ID    a writer's: packs that a manifest is about to name
    domains/D/sweeps/ID     a collector's: packs that it is deleting
    domains/D/seen          a collector's: what nobody named when it looked, and since when

Called by: `ladder/publishing` and `ladder/collecting`. Rule: what cannot be read protects: whoever
meets it treats it as if it named every pack.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from kybernate.artifacts import names
from kybernate.artifacts.chunks import Bytes
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import MAX_PACKS
from kybernate.model.checkpoint import Flaw

T = TypeVar("T", list[Any], dict[str, Any])

MAX_OBJECT = 16 * 1024 * 1024  # bytes: MAX_PACKS names, with room
_FORMAT, _VERSION = "kybernate-packs", 1
_PACK = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Since when (seconds since the epoch, by the store's clock) no manifest named a pack, by its
    name; since when an intent or a sweep looked left behind, by its key."""

    unnamed: Mapping[str, float] = field(default_factory=dict)
    left: Mapping[str, float] = field(default_factory=dict)


def intents(domain: str) -> str:
    """The prefix of a domain's intents."""
    return f"{names.DOMAINS}/{domain}/intents"


def sweeps(domain: str) -> str:
    """The prefix of a domain's sweeps."""
    return f"{names.DOMAINS}/{domain}/sweeps"


def seen_key(domain: str) -> str:
    """Where it stands what collectors saw."""
    return f"{names.DOMAINS}/{domain}/seen"


def encode(packs: Iterable[str]) -> bytes:
    """An intent or a sweep of these packs, by their names."""
    return orjson.dumps({"format": _FORMAT, "version": _VERSION, "packs": sorted(packs)})


def decode(content: Bytes) -> frozenset[str]:
    """Names of packs. Raises Unusable."""
    packs = _opened(content, "packs", list)
    return frozenset(map(_name, packs))


def encode_seen(seen: Seen) -> bytes:
    """As an object of a store."""
    whole = {"format": _FORMAT, "version": _VERSION, "packs": dict(seen.unnamed)}
    return orjson.dumps({**whole, "left": dict(seen.left)})


def decode_seen(content: Bytes) -> Seen:
    """As it was encoded. Raises Unusable."""
    unnamed, left = (_opened(content, part, dict) for part in ("packs", "left"))
    for at in (*unnamed.values(), *left.values()):
        if not isinstance(at, int | float) or not at >= 0:
            raise Unusable(Flaw.MALFORMED, f"{names.shown(str(at))} is no time")
    return Seen(unnamed={_name(pack): float(at) for pack, at in unnamed.items()}, left=left)


def _opened(content: Bytes, part: str, kind: type[T]) -> T:
    if len(content) > MAX_OBJECT:
        raise Unusable(Flaw.TOO_LARGE, f"{len(content)} bytes of {part}")
    try:
        whole = orjson.loads(content)
        if whole["format"] != _FORMAT or whole["version"] != _VERSION:
            raise Unusable(Flaw.VERSION, f"version {names.shown(str(whole['version']))}")
        found = whole[part]
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(Flaw.MALFORMED, names.shown(str(error))) from error
    if not isinstance(found, kind) or len(found) > MAX_PACKS:
        raise Unusable(Flaw.MALFORMED, f"{part}: expected at most {MAX_PACKS} packs")
    return found


def _name(pack: object) -> str:
    if not isinstance(pack, str) or not _PACK.fullmatch(pack):
        raise Unusable(Flaw.MALFORMED, f"pack {names.shown(str(pack))}")
    return pack
