"""
A catalogue that ends with its process. Agents fill the next one: its epoch is another.

Called by: `process` (`--database memory:`), tests of whatever asks a registry.
"""

import threading
import uuid
from collections.abc import Sequence
from itertools import islice

from kybernate.model.artifact import (
    COMES,
    GOES,
    Artifact,
    Check,
    Entry,
    Identity,
    Inventory,
    Kind,
    Occurrence,
    Place,
    Row,
    Wanted,
)
from registry import inventories
from registry.catalogue import Story


class Memory:
    """Implements `Catalogue`."""

    def __init__(self) -> None:
        self._epoch = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._keys: set[str] = set()
        self._artifacts: dict[Identity, Artifact] = {}
        self._copies: dict[Identity, dict[Place, Check | None]] = {}

    def epoch(self) -> str:
        """As the port says."""
        return self._epoch

    def record(self, occurrences: Sequence[Occurrence]) -> int:
        """As the port says."""
        with self._lock:
            return sum(map(self._write, occurrences))

    def take_inventory(self, inventory: Inventory) -> tuple[int, int]:
        """As the port says."""
        with self._lock:
            place = inventory.place
            known = [one for one, copies in self._copies.items() if place in copies]
            told = {
                entry.occurrence.identity: entry.occurrence.at
                for entry in sorted(self._entries, key=lambda entry: entry.occurrence.at)
                if entry.occurrence.place == place
            }
            new = inventories.differences(inventory, known, told)
            new = [one for one in new if self._write(one)]
            found = sum(one.kind is Kind.FOUND for one in new)
            return found, len(new) - found

    def rows(
        self, wanted: Wanted, after: Identity | None = None, limit: int = 100
    ) -> tuple[Row, ...]:
        """As the port says."""
        with self._lock:
            matching = (
                self._row(identity)
                for identity in sorted(self._copies)
                if (after is None or identity > after) and self._matches(identity, wanted)
            )
            return tuple(islice(matching, limit))

    def history(self, story: Story, after: int = 0, limit: int = 100) -> tuple[Entry, ...]:
        """As the port says."""
        with self._lock:
            entries = (entry for entry in self._entries[after:] if _tells(story, entry))
            return tuple(islice(entries, limit))

    def close(self) -> None:
        """As the port says."""

    def _write(self, one: Occurrence) -> bool:
        if one.key in self._keys:
            return False
        self._keys.add(one.key)
        self._entries.append(Entry(number=len(self._entries) + 1, occurrence=one))
        self._apply(one)
        return True

    def _apply(self, one: Occurrence) -> None:
        copies = self._copies.get(one.identity, {})
        if one.kind in COMES and one.artifact is not None:
            self._artifacts[one.identity] = one.artifact
            self._copies.setdefault(one.identity, {})[one.place] = None
        elif one.kind in GOES:
            copies.pop(one.place, None)
            if not copies:
                self._copies.pop(one.identity, None)
                self._artifacts.pop(one.identity, None)
        elif one.place in copies:
            flaw = one.detail or str(one.kind) if one.kind is Kind.DAMAGED else ""
            copies[one.place] = Check(at=one.at, flaw=flaw)

    def _row(self, identity: Identity) -> Row:
        copies = self._copies[identity]
        return Row(
            artifact=self._artifacts[identity],
            copies=tuple(sorted(copies)),
            checks={place: check for place, check in copies.items() if check is not None},
        )

    def _matches(self, identity: Identity, wanted: Wanted) -> bool:
        one, places = self._artifacts[identity], self._copies[identity]
        held = [
            place
            for place in places
            if wanted.node in (None, place.node) and wanted.tier in (None, place.tier)
        ]
        return (
            bool(held)
            and wanted.namespace in ("", identity.namespace)
            and wanted.name in ("", identity.name)
            and wanted.workload in ("", one.workload)
            and wanted.gold in (None, one.gold)
            and wanted.fingerprint in ("", one.fingerprint)
            and one.sealed_at >= wanted.sealed_from
            and (not wanted.sealed_until or one.sealed_at <= wanted.sealed_until)
        )


def _tells(story: Story, entry: Entry) -> bool:
    one = entry.occurrence
    return (
        story.namespace in ("", one.identity.namespace)
        and story.name in ("", one.identity.name)
        and story.node in (None, one.place.node)
    )
