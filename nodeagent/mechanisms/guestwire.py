"""
What agent and guest say to each other, as values: native/guest/protocol.h in Python.

Pure. Used by `guests`. What comes from a guest is a workload's word: every field is checked, and
`Malformed` is raised before anything is believed.
"""

import enum
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from nodeagent.mechanisms.collectives import Line

PROTOCOL = 1
BATCH = 128  # segments of one packet; the kernel passes at most 253 descriptors
_REQUEST = struct.Struct("<4I16s")
_ANSWER = struct.Struct("<Ii2IQ2I16s64s")
_ENTRY = struct.Struct("<3Q2I16s")
_STANDING = struct.Struct("<4I")
_COUNTED = struct.Struct("<3Q4I")
_UPTO = struct.Struct("<2Q")
ANSWER_ROOM = _ANSWER.size + max(BATCH * _ENTRY.size, 4096)
_GRAIN = 2 * 1024 * 1024
_LARGEST = 2**48
_Kind = TypeVar("_Kind", bound=enum.IntEnum)


class Malformed(Exception):
    """A guest said something it cannot mean."""


class OtherProtocol(Malformed):
    """A guest that was loaded before this agent, or after the next one, came."""


class Verb(enum.IntEnum):
    """What is asked of a guest."""

    HELLO = 1
    CLOSE = 2
    OPEN = 3
    LIST = 4
    EXPORT = 5
    RELEASE = 6
    BACK = 7
    FILLED = 8
    LEFT = 9
    WHERE = 10
    MOVED = 11
    HOLD = 12
    COUNTS = 13
    UPTO = 14
    SETTLE = 15


class Status(enum.IntEnum):
    """How it went; above zero it is the driver's own error."""

    DONE = 0
    NOT_UNDERSTOOD = -1
    STILL_BUSY = -2
    GATE_OPEN = -3
    NOT_WHOLE = -4


class State(enum.IntEnum):
    """Of a segment."""

    BACKED = 0
    RELEASED = 1
    EMPTY = 2  # backed, not yet filled


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Some of a workload's VRAM. `touched`: released or made anew since the gate was closed."""

    id: int
    address: int
    size: int
    state: State
    touched: bool
    card: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A guest's collectives, or a page of them: see `collectives.Standing`."""

    inside: int
    setting_up: int
    holding: bool
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A guest's answer. `count` is what was done, `total` what there is."""

    verb: Verb
    status: int
    count: int
    total: int
    epoch: int
    closed: bool
    nonce: bytes
    why: str
    segments: tuple[Segment, ...] = ()
    text: str = ""
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """Into the driver: let through by the gate ever, and not back yet."""

    ever: int
    inside: int


_CALLS = re.compile(r"([0-9]{1,20}) calls, ([0-9]{1,20}) inside", re.ASCII)


def calls(answer: Answer) -> Calls | None:
    """What the answer to LEFT tells of calls; None of an older library."""
    found = _CALLS.fullmatch(answer.why)
    return Calls(int(found[1]), int(found[2])) if found else None


def request(  # the packet's fields
    verb: Verb,
    *,
    first: int = 0,
    count: int = 0,
    milliseconds: int = 0,
    card: bytes = b"",
    to: bytes = b"",
) -> bytes:
    """A packet that asks. `to` is what a card is now, with MOVED, or pages of `upto` with UPTO."""
    return _REQUEST.pack(verb, first, count, milliseconds, card) + to


def upto(targets: Mapping[int, int]) -> Iterable[tuple[int, bytes]]:
    """How far lines may go, for packets that say so: how many, and what goes with the request."""
    pairs = iter(targets.items())
    while page := list(islice(pairs, BATCH)):
        yield len(page), b"".join(_UPTO.pack(*pair) for pair in page)


def answer(packet: bytes) -> Answer:
    """What a packet says. Raises Malformed."""
    if len(packet) < _ANSWER.size:
        raise Malformed(f"a packet of {len(packet)} bytes")
    verb, status, count, total, epoch, closed, protocol, nonce, why = _ANSWER.unpack_from(packet)
    if protocol != PROTOCOL:
        raise OtherProtocol(f"protocol {protocol}; {PROTOCOL} is spoken here")
    rest = packet[_ANSWER.size :]
    listed = verb in (Verb.LIST, Verb.EXPORT, Verb.BACK)
    return Answer(
        verb=_known(Verb, verb, "verb"),
        status=status,
        count=count,
        total=total,
        epoch=epoch,
        closed=bool(closed),
        nonce=nonce,
        why=_text(why.split(b"\0", 1)[0]),
        segments=_segments(rest, count) if listed else (),
        text=_text(rest) if verb in (Verb.LEFT, Verb.WHERE) else "",
        counts=_counts(rest, count) if verb == Verb.COUNTS and not status else None,
    )


def _counts(packet: bytes, count: int) -> Counts:
    if count > BATCH or len(packet) != _STANDING.size + count * _COUNTED.size:
        raise Malformed(f"{count} lines in {len(packet)} bytes")
    inside, setting_up, _, holding = _STANDING.unpack_from(packet)
    lines = tuple(_line(*fields) for fields in _COUNTED.iter_unpack(packet[_STANDING.size :]))
    return Counts(inside=inside, setting_up=setting_up, holding=bool(holding), lines=lines)


def _line(key: int, started: int, wanted: int, *rest: int) -> Line:
    member, members, ended, between = rest
    return Line(
        key=key,
        member=member,
        members=members,
        started=started,
        wanted=wanted,
        ended=bool(ended),
        between=bool(between),
    )


def _segments(packet: bytes, count: int) -> tuple[Segment, ...]:
    if count > BATCH or len(packet) != count * _ENTRY.size:
        raise Malformed(f"{count} segments in {len(packet)} bytes")
    return tuple(_segment(*fields) for fields in _ENTRY.iter_unpack(packet))


def _segment(id_: int, address: int, size: int, *rest: int | bytes) -> Segment:
    state, touched, card = rest
    if not 0 < size < _LARGEST or size % _GRAIN:
        raise Malformed(f"a segment of {size} bytes")
    assert isinstance(card, bytes)
    return Segment(
        id=id_,
        address=address,
        size=size,
        state=_known(State, state, "state"),
        touched=bool(touched),
        card=card,
    )


def _known(kind: type[_Kind], value: int | bytes, what: str) -> _Kind:
    try:
        return kind(int(value))
    except ValueError:
        raise Malformed(f"{what} {value!r}") from None


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace")
