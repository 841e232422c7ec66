"""
The port: what every store can do.

Called by: everybody who keeps checkpoints. Rule: nothing is added here that one of the places
cannot do in one step; whoever needs more builds it above.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from kybernate.artifacts.chunks import Bytes
from kybernate.stores.errors import Absent, BadKey

_KEY = re.compile(
    r"(?!.*//)[a-z0-9][a-z0-9._-]{0,254}(?:/[a-z0-9][a-z0-9._-]{0,254}){0,7}", re.ASCII
)
MAX_KEY = 512  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object: its key, its bytes, and when it was put (seconds since the epoch, by the
    store's clock)."""

    key: str
    size: int
    put_at: float


class Store(Protocol):
    """Objects by key. Thread safe. Every method may raise Away, Denied, Faulty."""

    def put(self, key: str, content: Bytes) -> None:
        """Whole and durable, or an error and what was there before. Replaces.

        The content may change as soon as this returns. Raises BadKey, NoRoom.
        """

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """So many bytes from `offset` on; without `size` all that follow.

        Less come only where the object ends before. `into`, where it is given and large enough,
        is where they may be put, so that no memory is taken; what returns is what holds them.
        Raises BadKey, Absent.
        """

    def stat(self, key: str) -> Listed:
        """What it is, without its bytes. Raises BadKey, Absent."""

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """Every object whose key is below `prefix` (whole parts of a key), in no order."""

    def delete(self, key: str) -> bool:
        """Have it gone, durably. Whether it was there, as far as the place can tell; twice is
        fine. Raises BadKey."""


def checked(key: str) -> str:
    """The key. Raises BadKey."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key):
        raise BadKey(f"{key[:80]!r} (expected lower-case words with / between)")
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix without a `/` at its end. Raises BadKey."""
    stripped = prefix.removesuffix("/")
    return checked(stripped) if stripped else ""


def is_there(store: Store, key: str) -> bool:
    """Whether it has the object. Raises as `Store.stat` does, but for Absent."""
    try:
        store.stat(key)
    except Absent:
        return False
    return True


def is_below(key: str, prefix: str) -> bool:
    """Whether a key lies below the prefix; below none lie all."""
    return not prefix or key.startswith(f"{prefix}/")


def cut(offset: int, size: int | None, whole: int) -> tuple[int, int]:
    """Begin and end of what is asked for, of an object of `whole` bytes."""
    begin = min(max(0, offset), whole)
    return begin, whole if size is None else min(whole, begin + max(0, size))


def placed(content: Bytes, into: memoryview | None) -> memoryview:
    """The content, in `into` where it fits."""
    if into is None or len(into) < len(content):
        return memoryview(content)
    into[: len(content)] = content
    return into[: len(content)]
