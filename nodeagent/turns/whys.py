"""
Why each one that waits is not active yet: kept for who asks, told when it changes.

Called by: the coordinator, after each decision and each change. Thread safe.
Rule: people are told when the reason is another, not when its numbers are.
"""

import threading
from collections.abc import Mapping

from kybernate.decisions.books import Books
from kybernate.model.ids import WorkloadKey
from kybernate.model.verdict import Reason, Refusal
from nodeagent.lives.telling import Teller
from nodeagent.turns import wishes

_BUSY = Refusal(reason=Reason.BUSY)  # over in a moment, and what comes of it is told


class Whys:
    """By workload."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._whys: dict[WorkloadKey, Refusal] = {}
        self._lock = threading.Lock()

    def of(self, key: WorkloadKey) -> Refusal | None:
        """The newest."""
        with self._lock:
            return self._whys.get(key)

    def forget(self, books: Books) -> None:
        """Those of whoever is held up no more."""
        with self._lock:
            for key in [key for key in self._whys if not wishes.is_held_up(books, key)]:
                del self._whys[key]

    def explain(self, books: Books, waits: Mapping[WorkloadKey, Refusal]) -> None:
        """Tell each of these why, when the reason is another than before."""
        for key, refusal in waits.items():
            with self._lock:
                known = self._whys.get(key)
                self._whys[key] = refusal
            if refusal == _BUSY:
                continue
            if known is None or known.reason is not refusal.reason:
                self._teller.waits(books.tenancies[key], refusal)
