"""
The whole view as JSON, and back: what `GET /debug/view` answers and `--replay` reads.

Called by: `process.py`, `replay.py`. Rule: a dump holds everything a decision depends on, the
moment and policy's verdicts included, so that replay comes to the same decision.
"""

import dataclasses
import threading
import types
import typing
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

import orjson

from kybernate.api.errors import Fault, Malformed
from kybernate.model.cluster import ClusterView
from kybernate.model.ids import NodeName, PodUid
from kybernate.model.policy import PlacementVerdict

T = TypeVar("T")

FORMAT = 1
_REMEMBERED = 32  # requests; at 5,000 nodes one is 40 KB of references


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """`now` is the wall clock; `asked` the nodes of the latest requests, where they are known."""

    format: int = FORMAT
    now: float
    candidates: int
    cold_start: float
    cluster: ClusterView
    verdicts: Mapping[PodUid, PlacementVerdict] = field(default_factory=dict)
    asked: Mapping[PodUid, tuple[NodeName, ...]] = field(default_factory=dict)


class Recent:
    """Which nodes the scheduler offered, for the latest pods. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: OrderedDict[PodUid, tuple[NodeName, ...]] = OrderedDict()

    def asked(self, uid: PodUid, names: tuple[NodeName, ...]) -> None:
        """A request for this pod."""
        with self._lock:
            self._names[uid] = names
            self._names.move_to_end(uid)
            if len(self._names) > _REMEMBERED:
                self._names.popitem(last=False)

    def all(self) -> dict[PodUid, tuple[NodeName, ...]]:
        """By pod."""
        with self._lock:
            return dict(self._names)


def write(dump: Dump) -> bytes:
    """JSON, indented for people."""
    return orjson.dumps(dump, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)


def read(body: bytes) -> Dump:
    """Raises Malformed for anything that is not a dump of this format."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise Malformed([Fault("$", body[:80], f"JSON ({problem})")]) from None
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise Malformed([Fault("$.format", found, f"a dump of format {FORMAT}")])
    dump: Dump = _value(Dump, document, "$")
    return dump


def _value(kind: Any, given: Any, path: str) -> Any:
    """`given` as the type `kind`, going by the annotations of the dataclasses."""
    origin = typing.get_origin(kind)
    if hasattr(kind, "__supertype__"):
        return _value(kind.__supertype__, given, path)
    if origin in (types.UnionType, typing.Union):
        return None if given is None else _value(_without_none(kind), given, path)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, given, path)
    if origin is tuple:
        return _tuple(kind, given, path)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(kind, given, path)
    return _plain(kind, given, path)


def _dataclass(kind: Any, given: Any, path: str) -> Any:
    given = _checked(dict, given, path)
    hints = typing.get_type_hints(kind)
    names = {one.name for one in dataclasses.fields(kind)}
    unknown = given.keys() - names
    if unknown:
        raise Malformed([Fault(path, sorted(unknown), "none but " + ", ".join(sorted(names)))])
    values = {name: _value(hints[name], given[name], f"{path}.{name}") for name in given}
    try:
        return kind(**values)
    except TypeError as problem:
        raise Malformed([Fault(path, sorted(given), f"every field ({problem})")]) from None


def _tuple(kind: Any, given: Any, path: str) -> Any:
    item, *_ = typing.get_args(kind)
    items = enumerate(_checked(list, given, path))
    return tuple(_value(item, one, f"{path}[{at}]") for at, one in items)


def _mapping(kind: Any, given: Any, path: str) -> Any:
    key, item = typing.get_args(kind)
    pairs = _checked(dict, given, path).items()
    return {_key(key, name): _value(item, one, f"{path}.{name}") for name, one in pairs}


def _key(kind: Any, name: str) -> Any:
    """JSON has text for keys; GPU indices are numbers."""
    if kind is int:
        return int(name)
    return _value(kind, name, "a key")


def _plain(kind: Any, given: Any, path: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(given)
        except ValueError:
            raise Malformed([Fault(path, given, "one of " + ", ".join(map(str, kind)))]) from None
    if kind is float and type(given) is int:
        return float(given)
    return _checked(kind, given, path)


def _checked(kind: type[T], given: Any, path: str) -> T:
    if type(given) is not kind:
        raise Malformed([Fault(path, given, f"a value of type {kind.__name__}")])
    return given


def _without_none(kind: Any) -> Any:
    return next(part for part in typing.get_args(kind) if part is not type(None))
