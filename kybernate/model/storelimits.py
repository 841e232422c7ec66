"""How much the object store may keep: all of it, and for each namespace. By policy's data."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Bytes of checkpoints, each counted whole; None: no limit. A namespace's own word goes before
    `default`, also where it says that there is none."""

    whole: int | None = None
    default: int | None = None
    namespaces: Mapping[str, int | None] = field(default_factory=dict)

    def of(self, namespace: str) -> int | None:
        """What this one may keep there."""
        return self.namespaces.get(namespace, self.default)


NO_LIMITS = StoreLimits()
"""Where nobody says any."""
