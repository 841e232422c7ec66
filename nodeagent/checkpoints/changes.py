"""What happens to copies in the store, for whoever keeps books of them."""

from collections.abc import Callable
from dataclasses import dataclass

from kybernate.model.artifact import Kind
from nodeagent.checkpoints.sealed import Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`sealed` is None for one that went or was damaged, and whose manifest could not be read."""

    kind: Kind
    namespace: str
    name: str
    sealed: Sealed | None = None
    detail: str = ""


Listener = Callable[[Change], None]
"""Called in the thread that made the change, after it; returns at once and raises nothing."""
