"""
Which packs of a store's domain may go. Pure.

Called by: `ladder/collecting`. Rule: a pack goes when no manifest names it and nobody is about to,
and was so for the grace time, by the store's own clock. Rule: a clock that jumped back makes
packs wait anew, for no longer than the grace time.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPack:
    """One that lies in the store: bytes, and when it was put (seconds since the epoch)."""

    size: int
    put_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainView:
    """What was seen of a domain; packs by their names. `intended`: a writer is about to name them.
    `since`: from when on each is known to be unnamed."""

    packs: Mapping[str, StoredPack]
    named: Set[str] = frozenset()
    intended: Set[str] = frozenset()
    since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The plan: what goes, what waits and for how many seconds more, what is to be remembered."""

    going: tuple[str, ...]
    waiting: Mapping[str, float]
    since: Mapping[str, float]


def sweep(view: DomainView, now: float, grace: float) -> Sweep:
    """Of a domain, at `now` by the store's clock; `grace` in seconds."""
    free = view.packs.keys() - view.named - view.intended
    since = {name: min(now, view.since.get(name, now)) for name in free}
    left = {name: _left(view, name, since[name], now, grace) for name in free}
    return Sweep(
        going=tuple(sorted(name for name in free if left[name] <= 0)),
        waiting={name: left[name] for name in sorted(free) if left[name] > 0},
        since=since,
    )


def _left(view: DomainView, name: str, since: float, now: float, grace: float) -> float:
    """Seconds until it may go. One put in what is the future by now counts since it was seen."""
    put_at = view.packs[name].put_at
    return grace - (now - (since if put_at > now else max(since, put_at)))
