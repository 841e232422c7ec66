"""
The annotations of a pod: what it wishes (input), and which seat it has (output).

Called by: `pods.py` and the webhook. Rule: an unknown `kyb.ai/...` annotation is a fault that names
the accepted ones, so that a typing error never passes in silence. Rule: values are anybody's input;
names are matched against a pattern, nothing here becomes a path.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

from kybernate.api import duration, names, quantity
from kybernate.api.errors import Fault, Faults, Malformed
from kybernate.model.gpu import Seat
from kybernate.model.ids import GroupName
from kybernate.model.workload import (
    Endpoint,
    OnDelete,
    ParkMechanism,
    ScaleToZero,
    Wishes,
    WorkloadClass,
)

E = TypeVar("E", bound=StrEnum)

MOST_CANDIDATES = 8  # checkpoints in kyb.ai/restore-from: each may be fetched from afar in vain

_PREFIX = names.GROUP + "/"
_KNOWN = names.INPUT_ANNOTATIONS | names.OUTPUT_ANNOTATIONS
_GROUP_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
# As clients write it in the OpenAI `model` field: `meta-llama/Llama-3.1-8B-Instruct:awq`.
_MODEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/-]{0,126}[A-Za-z0-9])?", re.ASCII)
_ENDPOINT = re.compile(r"([0-9]{1,5})(/[A-Za-z0-9._~/-]{0,255})?", re.ASCII)
_DNS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


def path(annotation: str) -> str:
    """Where an annotation stands in a pod: `metadata.annotations[kyb.ai/vram]`."""
    return f"metadata.annotations[{annotation}]"


def ours(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Those that are meant for us, in the order they stand."""
    return tuple(
        [
            (name, value)
            for name, value in given.items()
            if name.startswith(_PREFIX) or name == names.PREFER_GROUP_PLAIN
        ]
    )


def read_wishes(given: Mapping[str, str]) -> Wishes:
    """What the annotations ask for. Raises Malformed with every fault, unknown names included."""
    faults = Faults()
    fields: dict[str, Any] = {}
    for name, value in ours(given):
        reader = _READERS.get(name)
        if reader is not None:
            field, parse = reader
            fields[field] = faults.read(path(name), value, parse, None)
        elif name not in _KNOWN and name != names.PREFER_GROUP_PLAIN:
            faults.add(path(name), value, "one of " + ", ".join(sorted(names.INPUT_ANNOTATIONS)))
    _read_plain_group(given, fields, faults)
    faults.check()
    return replace(Wishes(), **fields)


def read_seat(given: Mapping[str, str]) -> Seat | None:
    """The seat the agent wrote; None before it did. Raises Malformed."""
    text = given.get(names.SEAT)
    if text is None:
        return None
    try:
        return Seat.parse(text)
    except ValueError:
        raise Malformed([Fault(path(names.SEAT), text, "a seat like G01/2")]) from None


def _read_plain_group(given: Mapping[str, str], fields: dict[str, Any], faults: Faults) -> None:
    value = given.get(names.PREFER_GROUP_PLAIN)
    if value is None:
        return
    plain = faults.read(path(names.PREFER_GROUP_PLAIN), value, _group, None)
    other = fields.setdefault("prefer_group", plain)
    if other != plain:
        faults.add(path(names.PREFER_GROUP_PLAIN), value, f"the same as {names.PREFER_GROUP}")


def _vram(text: str) -> int:
    size = quantity.parse_bytes(text)
    if size == 0:
        raise ValueError("a size above 0, like 40Gi")
    return size


def _group(text: str) -> GroupName:
    if _GROUP_NAME.fullmatch(text) is None:
        raise ValueError("the name of a group, like G01")
    return GroupName(text)


def _checkpoints(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if len(found) > MOST_CANDIDATES:
        raise ValueError(f"at most {MOST_CANDIDATES} names of checkpoints")
    if not all(map(_is_checkpoint, found)):
        raise ValueError(
            "names of checkpoints of this namespace, separated by commas; "
            "NAMESPACE/NAME for a gold image of another"
        )
    return found


def _is_checkpoint(text: str) -> bool:
    namespace, slash, name = text.rpartition("/")
    ours = not slash or _NAMESPACE.fullmatch(namespace) is not None
    return ours and _DNS_NAME.fullmatch(name) is not None


def _readiness(text: str) -> bool:
    if text != "active":
        raise ValueError("active")
    return True


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _model(text: str) -> str:
    if _MODEL_NAME.fullmatch(text) is None:
        raise ValueError("a model's name of at most 128 characters, like meta-llama/Llama-3.1-8B")
    return text


def parse_endpoint(text: str) -> Endpoint:
    """`8000` or `8000/metrics`. Raises ValueError, saying what is accepted."""
    found = _ENDPOINT.fullmatch(text)
    if found is None or not 0 < int(found[1]) < 65536:
        raise ValueError("a port of the pod and a path, like 8000/metrics")
    return Endpoint(int(found[1]), found[2] or "/metrics")


def _one_of(kind: type[E]) -> Callable[[str], E]:
    accepted = "one of " + ", ".join(kind)

    def parse(text: str) -> E:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(accepted) from None

    return parse


_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    names.VRAM: ("vram", _vram),
    names.CLASS: ("workload_class", _one_of(WorkloadClass)),
    names.MIN_RUNTIME: ("min_runtime", duration.parse_seconds),
    names.IDLE_AFTER: ("idle_after", duration.parse_seconds),
    names.PREFER_GROUP: ("prefer_group", _group),
    names.REQUIRE_GROUP: ("require_group", _group),
    names.RESTORE_FROM: ("restore_from", _checkpoints),
    names.ON_DELETE: ("on_delete", _one_of(OnDelete)),
    names.PARK: ("park", _one_of(ParkMechanism)),
    names.READINESS: ("readiness_active", _readiness),
    names.PIN: ("pinned", _flag),
    names.KEEP_WARM: ("keep_warm", _flag),
    names.SCALE_TO_ZERO: ("scale_to_zero", _one_of(ScaleToZero)),
    names.MODEL: ("model", _model),
    names.METRICS: ("metrics", parse_endpoint),
}
