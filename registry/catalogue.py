"""
The port to what the registry keeps.

Called by: `service`. Implementations: `memory`, `sql`; both pass `tests/registry/test_catalogues*`.
Rule: the history only grows, and rows follow from it: each occurrence is written and applied
together or not at all, and one whose key is known is not applied again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kybernate.clients.errors import Retry
from kybernate.model.artifact import Entry, Identity, Inventory, Occurrence, Row, Wanted
from kybernate.model.ids import NodeName


class DatabaseAway(Retry):
    """The database does not answer, or is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Whose history; what is None or empty does not matter."""

    namespace: str = ""
    name: str = ""
    node: NodeName | None = None


class Catalogue(Protocol):
    """Thread safe. Every method raises DatabaseAway."""

    def epoch(self) -> str:
        """A random word of this database, made with it."""
        ...

    def record(self, occurrences: Sequence[Occurrence]) -> int:
        """Write and apply them in this order; how many were new."""
        ...

    def take_inventory(self, inventory: Inventory) -> tuple[int, int]:
        """Have the rows of that place be as they are there; how many copies were found, missing.

        What its node told of a copy after `as_of` stands: the inventory did not see it yet.
        """
        ...

    def rows(
        self, wanted: Wanted, after: Identity | None = None, limit: int = 100
    ) -> tuple[Row, ...]:
        """Those with larger identities, in their order."""
        ...

    def history(self, story: Story, after: int = 0, limit: int = 100) -> tuple[Entry, ...]:
        """Entries with larger numbers, in their order."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
