"""
The stand-in card from outside: who is on it and how, and what is to go wrong next.

Called by tests. The places are those of `struct card` (fake.h).
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from uuid import UUID

_UUID_AT, _FAILS_AT, _OLD_AT, _PROCESSES_AT = 24, 40, 44, 48
_PROCESS = struct.Struct("<i4xQ3iI32sQ")
_PROCESSES = 64


class Step(IntEnum):
    """What the driver can be asked to do with a process (checkpoint.c)."""

    LOCK = 1
    CHECKPOINT = 2
    RESTORE = 3
    UNLOCK = 4


@dataclass(frozen=True, slots=True)
class OnCard:
    """A process: the driver's state of it (`CUprocessState`), and its bytes of the card."""

    state: int
    held: int


class FakeCard:
    """`path` is what KYB_FAKE_CARD names."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on(self, pid: int) -> OnCard | None:
        """A process; None where the card does not know it."""
        table = self._path.read_bytes()[_PROCESSES_AT:]
        for number in range(min(_PROCESSES, len(table) // _PROCESS.size)):
            found, _, state, _, _, _, _, held = _PROCESS.unpack_from(table, number * _PROCESS.size)
            if found == pid:
                return OnCard(state, held)
        return None

    def held(self, pid: int) -> int:
        """Bytes of a process."""
        found = self.on(pid)
        return found.held if found else 0

    def fail_next(self, step: Step | None) -> None:
        """The next such step of any process fails; None: no more."""
        self._write(_FAILS_AT, struct.pack("<i", step or 0))

    def be_old(self, *, old: bool) -> None:
        """The driver of processes that start from now on has no checkpoints."""
        self._write(_OLD_AT, struct.pack("<i", old))

    def be(self, uuid: UUID) -> None:
        """Another card of the same kind."""
        self._write(_UUID_AT, uuid.bytes)

    def _write(self, at: int, content: bytes) -> None:
        with self._path.open("r+b") as file:
            file.seek(at)
            file.write(content)
