"""
CRIU's image files, as bytes: entries of protobuf fields, read and written again. Pure.

Called by: `artifacts.processes` (what is in an image) and `nodeagent.images` (which changes some).
Rule: what is not understood stays as it is, byte for byte. Field numbers are those of CRIU's
images/*.proto, which it keeps compatible. Rule: an image is a stranger's: what is read is never
more than its bytes hold, and everything that is wrong with it is NotAnImage.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEADER = 8  # two magic numbers: that of all images, and that of this kind
_SIZE = struct.Struct("<I")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST = 10  # bytes of a number


class NotAnImage(ValueError):
    """The bytes are not what CRIU writes."""


@dataclass(slots=True)
class Field:
    """One field: a number for the kinds 0, 1 and 5, else bytes."""

    number: int
    kind: int
    value: int | bytes


class Message:
    """A protobuf message: fields in their order."""

    def __init__(self, raw: bytes = b"") -> None:
        """Raises NotAnImage."""
        self.fields = list(_fields(raw))

    def number(self, number: int, default: int = 0) -> int:
        """Of a field; the last one counts."""
        found = [f.value for f in self.fields if f.number == number and isinstance(f.value, int)]
        return found[-1] if found else default

    def numbers(self, number: int) -> tuple[int, ...]:
        """Of a repeated field, packed or not."""
        found: list[int] = []
        for field in self.fields:
            if field.number == number:
                value = field.value
                found += [value] if isinstance(value, int) else _varints(value)
        return tuple(found)

    def message(self, number: int) -> "Message | None":
        """The message in a field; None where there is none. Raises NotAnImage."""
        found = [f.value for f in self.fields if f.number == number and isinstance(f.value, bytes)]
        return Message(found[-1]) if found else None

    def blobs(self, number: int) -> tuple[bytes, ...]:
        """Of a repeated field."""
        return tuple(
            f.value for f in self.fields if f.number == number and isinstance(f.value, bytes)
        )

    def put(self, number: int, *values: int | bytes) -> None:
        """Give a field these values in place of all it has, where it stood."""
        where = next((i for i, f in enumerate(self.fields) if f.number == number), None)
        kept = [f for f in self.fields if f.number != number]
        new = [Field(number, _BYTES if isinstance(v, bytes) else _VARINT, v) for v in values]
        at = len(kept) if where is None else where
        self.fields = [*kept[:at], *new, *kept[at:]]

    def raw(self) -> bytes:
        """As bytes."""
        return b"".join(_written(field) for field in self.fields)


def split(raw: bytes, name: str) -> tuple[bytes, list[bytes]]:
    """The head and the entries of an image file of this name. Raises NotAnImage."""
    entries, at = [], _HEADER
    while at < len(raw):
        if at + _SIZE.size > len(raw):
            raise NotAnImage(f"{name} is truncated")
        (size,) = _SIZE.unpack_from(raw, at)
        at += _SIZE.size
        if at + size > len(raw):
            raise NotAnImage(f"{name} is truncated")
        entries.append(raw[at : at + size])
        at += size
    return raw[:_HEADER], entries


def joined(head: bytes, entries: Sequence[bytes]) -> bytes:
    """An image file's bytes."""
    return head + b"".join(_SIZE.pack(len(entry)) + entry for entry in entries)


def _fields(raw: bytes) -> Iterator[Field]:
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(raw, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
            value, at = int.from_bytes(_slice(raw, at, size), "little"), at + size
        elif kind == _BYTES:
            size, at = _varint(raw, at)
            value, at = _slice(raw, at, size), at + size
        else:
            raise NotAnImage(f"a field of kind {kind}")
        yield Field(number, kind, value)


def _slice(raw: bytes, at: int, size: int) -> bytes:
    if at + size > len(raw):
        raise NotAnImage("a field is truncated")
    return raw[at : at + size]


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(_LONGEST):
        if at + step >= len(raw):
            raise NotAnImage("a number is truncated")
        byte = raw[at + step]
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value, at + step + 1
    raise NotAnImage("a number is too long")


def _varints(raw: bytes) -> list[int]:
    found, at = [], 0
    while at < len(raw):
        value, at = _varint(raw, at)
        found.append(value)
    return found


def _written(field: Field) -> bytes:
    key = _as_varint(field.number << 3 | field.kind)
    if isinstance(field.value, bytes):
        return key + _as_varint(len(field.value)) + field.value
    if field.kind == _VARINT:
        return key + _as_varint(field.value)
    return key + field.value.to_bytes(4 if field.kind == _FIXED32 else 8, "little")


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
