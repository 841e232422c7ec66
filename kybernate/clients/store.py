"""
What a reflector knows: the projected objects, and what changed between two lists.

Pure but for its lock. Called by: `reflector.py`.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Key = tuple[str, str]  # (namespace, name); the namespace is "" for cluster-scoped objects


class ChangeKind(StrEnum):
    """What happened to an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


ADDED, MODIFIED, DELETED = ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One change; `old` is None for what is new, `new` for what is gone."""

    kind: ChangeKind
    key: Key
    old: T | None
    new: T | None


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    uid: str
    version: str
    value: T


class Store(Generic[T]):
    """Objects by key, projected. One writer, many readers.

    `project` may return None: the object is left out, as if it were not there.
    """

    def __init__(self, project: Callable[[dict[str, Any]], T | None]) -> None:
        self._project = project
        self._entries: dict[Key, _Entry[T]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> T | None:
        """The object, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def items(self) -> dict[Key, T]:
        """A copy: it does not change under the reader."""
        with self._lock:
            return {key: entry.value for key, entry in self._entries.items()}

    def put(self, obj: dict[str, Any]) -> list[Change[T]]:
        """What changes by this object; nothing for a version that is known.

        An object that was deleted and made again is two changes: the old life's end comes first.
        """
        key, uid, version = _identity(obj)
        known = self._entries.get(key)
        if known is not None and (known.uid, known.version) == (uid, version):
            return []
        value = self._project(obj)
        if value is None:
            return self.drop(key)
        changes = self.drop(key) if known is not None and known.uid != uid else []
        old = self.get(key)
        with self._lock:
            self._entries[key] = _Entry(uid, version, value)
        kind = ADDED if old is None else MODIFIED
        return [*changes, Change(kind, key, old, value)]

    def drop(self, key: Key) -> list[Change[T]]:
        """What changes by its end; nothing where it was not there."""
        with self._lock:
            gone = self._entries.pop(key, None)
        return [] if gone is None else [Change(DELETED, key, gone.value, None)]

    def drop_others(self, kept: Iterable[Key]) -> list[Change[T]]:
        """What changes when only these are still there: after a new list."""
        gone = self._entries.keys() - set(kept)
        return [change for key in sorted(gone) for change in self.drop(key)]


def key_of(obj: Mapping[str, Any]) -> Key:
    """(namespace, name)."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _identity(obj: Mapping[str, Any]) -> tuple[Key, str, str]:
    metadata = obj["metadata"]
    return key_of(obj), metadata.get("uid", ""), metadata.get("resourceVersion", "")
