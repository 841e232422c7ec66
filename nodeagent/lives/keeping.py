"""
Writing down what the books know of a workload beside its story: what it wants, what people want.

One thread, so that nobody who changes the books waits for a disk. A crash in between loses a wish
of the last milliseconds, never contents.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.model.ids import WorkloadKey
from kybernate.runtime.logs import get_logger
from nodeagent.disk.journal import Journal
from nodeagent.disk.records import Record
from nodeagent.lives.life import Life, Lives

_AGAIN_S = 0.2  # until one whose story has not ended is looked at again


class Keeper:
    """`changed` listens to the coordinator; `start` once."""

    def __init__(self, lives: Lives, journal: Journal, now: Callable[[], Books]) -> None:
        """`now` tells the books as they are: changes made at once are heard in any order."""
        self._lives, self._journal, self._now = lives, journal, now
        self._fresh: set[WorkloadKey] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is known, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def changed(self, before: Books, after: Books) -> None:
        """From the coordinator."""
        fresh = {k for k, t in after.tenancies.items() if before.tenancies.get(k) is not t}
        if fresh:
            with self._changed:
                self._fresh.update(fresh)
                self._changed.notify_all()

    def _run(self) -> None:
        busy: set[WorkloadKey] = set()
        while True:
            with self._changed:
                pause = _AGAIN_S if busy else None
                self._changed.wait_for(lambda: self._fresh or self._stopping, pause)
                fresh, self._fresh = self._fresh | busy, set()
                stopping = self._stopping
            if not fresh:
                return
            lives = [life for key in fresh if (life := self._lives.get(key)) is not None]
            busy = {life.key for life in lives if not self._written(life, wait=stopping)}

    def _written(self, life: Life, *, wait: bool) -> bool:
        """Whether its turn has come: a story that has the life may take long, and nobody else's
        wishes wait for it."""
        if not life.lock.acquire(blocking=wait):
            return False
        try:
            self._write(life)
        finally:
            life.lock.release()
        return True

    def _write(self, life: Life) -> None:
        tenancy = self._now().tenancies.get(life.key)
        if life.gone or tenancy is None or tenancy.life != life.id:
            return
        wanted = _with_wishes(life.record, tenancy)
        if wanted == life.record:
            return
        try:
            life.record = self._journal.write(wanted)
        except OSError as error:
            get_logger(workload=str(life.key)).error("journal not written", why=str(error))


def _with_wishes(record: Record, tenancy: Tenancy) -> Record:
    return replace(
        record,
        wanted_since=tenancy.wanted_since,
        last_active=tenancy.last_active,
        asked_to_park=tenancy.asked_to_park,
        terms=replace(record.terms, desired=tenancy.desired),
    )
