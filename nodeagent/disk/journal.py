"""
The journal: what is about to be done to each workload, on disk before it is done.

Called by the stories and by recovery. One sealed file per pod uid; the file is replaced whole.
Rule: a file that cannot be read is put aside, told about, and the agent goes on.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kybernate.model.ids import PodUid
from nodeagent.disk import records
from nodeagent.disk.durable import DRAFT, seal, sync_folder
from nodeagent.disk.records import Mark, Record, Unreadable

ASIDE = "aside"
_SUFFIX = ".json"


class Journal(Protocol):
    """The port. Thread safe for different workloads."""

    def write(self, record: Record) -> Record:
        """Seal the record with the next generation; what was written."""

    def forget(self, uid: PodUid) -> None:
        """The workload is gone."""


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A record that was put aside. `uid` is its file's name."""

    uid: PodUid
    why: str
    path: Path


class FileJournal:
    """A `Journal` in a folder that outlives the agent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, record: Record) -> Record:
        """As the port says."""
        written = replace(record, generation=record.generation + 1)
        seal(self._path(record.uid), records.encode(written))
        return written

    def forget(self, uid: PodUid) -> None:
        """As the port says. Forgetting twice is fine."""
        for path in (self._path(uid), self._folder / ASIDE / self._path(uid).name):
            with suppress(FileNotFoundError):
                path.unlink()
                sync_folder(path.parent)

    def read_all(self) -> tuple[tuple[Record, ...], tuple[Corrupt, ...]]:
        """Every record, and those that had to be put aside."""
        found: list[Record] = []
        corrupt = [
            Corrupt(u, "put aside before", self._folder / ASIDE / f"{u}{_SUFFIX}")
            for u in sorted(self.aside())
        ]
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                found.append(records.decode(path.read_bytes()))
            except Unreadable as problem:
                corrupt.append(self._put_aside(path, str(problem)))
        for draft in self._folder.glob(f"*{DRAFT}"):
            draft.unlink()  # never sealed, so it never happened
        return tuple(found), tuple(corrupt)

    def aside(self) -> frozenset[PodUid]:
        """Pods whose records were put aside, now or earlier, and not cleared away by people."""
        kept = (self._folder / ASIDE).glob(f"*{_SUFFIX}")
        return frozenset(PodUid(path.name.removesuffix(_SUFFIX)) for path in kept)

    def _put_aside(self, path: Path, why: str) -> Corrupt:
        aside = self._folder / ASIDE
        aside.mkdir(exist_ok=True)
        target = aside / path.name
        path.replace(target)
        return Corrupt(PodUid(path.name.removesuffix(_SUFFIX)), why, target)

    def _path(self, uid: PodUid) -> Path:
        if not uid or "/" in uid or uid.startswith("."):
            raise ValueError(f"not a pod uid: {uid!r}")
        return self._folder / f"{uid}{_SUFFIX}"


class BreakingJournal:
    """A `Journal` that ends the process at a chosen mark: fault injection for crash tests.

    `point` is `before:MARK` or `after:MARK`; `end` is called there, once. The agent puts it around
    its journal when the environment variable KYB_FAULT is set, and nowhere else.
    """

    def __init__(self, journal: Journal, point: str, end: Callable[[], None]) -> None:
        """Raises ValueError for a point that does not exist."""
        self._journal = journal
        self._when, _, mark = point.partition(":")
        if self._when not in ("before", "after"):
            raise ValueError(f"fault point {point!r} (expected before:MARK or after:MARK)")
        self._mark = Mark(mark)
        self._end = end

    def write(self, record: Record) -> Record:
        """As the port says, or the end."""
        if record.mark is self._mark and self._when == "before":
            self._end()
        written = self._journal.write(record)
        if record.mark is self._mark and self._when == "after":
            self._end()
        return written

    def forget(self, uid: PodUid) -> None:
        """As the port says."""
        self._journal.forget(uid)
