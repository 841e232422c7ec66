"""
When an event is written, counted or dropped. Pure: it is told the time.

Called by: `events.py`. The algorithm is client-go's: the first of a kind is created, the second
within six minutes starts a series, further ones are only counted, and the count is written every 30
minutes and once more when the series has ended. Unlike there, a hash of the note belongs to what
makes two events the same: another explanation is another event.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from kybernate.model.verdict import EventReason

NOTE_LIMIT = 1024  # bytes; the API server refuses longer ones


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """The object an event is about. A cluster-scoped one has the namespace ""."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = "v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """Something that happened once. `at` is seconds since the epoch."""

    regarding: ObjectRef
    reason: EventReason
    action: str
    note: str
    at: float
    warning: bool = False
    related: ObjectRef | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for occurrences that are one event."""
        note = hashlib.blake2s(self.note.encode(), digest_size=8).digest()
        return (self.regarding, self.reason, self.action, self.warning, self.related, note)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and how many. A workload that is switched every 20 s may write three events a
    minute for ever, and 25 at once; more is a loop that would flood etcd."""

    burst: int = 25  # of client-go's spam filter
    refill: float = 20.0  # seconds per event; client-go's 300 would hide ordinary time slicing
    series_within: float = 360.0
    write_count_every: float = 1800.0
    objects: int = 4096  # remembered; the longest unheard of is forgotten first


@dataclass(slots=True)
class Series:
    """One event and how often it has happened. `name` is its object's name once created."""

    first: Occurrence
    count: int = 1
    last: float = 0.0
    written_count: int = 0
    written_at: float = 0.0
    name: str = ""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


@dataclass(slots=True)
class EventBook:
    """What has been recorded lately."""

    limits: Limits = Limits()
    limited: int = 0  # occurrences the rate limit swallowed
    _series: "OrderedDict[tuple[object, ...], Series]" = field(default_factory=OrderedDict)
    _buckets: "OrderedDict[ObjectRef, _Bucket]" = field(default_factory=OrderedDict)

    def note(self, occurrence: Occurrence) -> Series | None:
        """The series to write now (create it while `written_count` is 0); None: nothing to do."""
        series = self._series.get(occurrence.key)
        if series is not None and occurrence.at - series.last <= self.limits.series_within:
            series.count += 1
            series.last = max(series.last, occurrence.at)
            self._series.move_to_end(occurrence.key)
            due = occurrence.at - series.written_at >= self.limits.write_count_every
            return series if series.count == 2 or due else None
        if not self._allowed(occurrence):
            self.limited += 1
            return None
        fresh = Series(occurrence, last=occurrence.at)
        self._series[occurrence.key] = fresh
        self._series.move_to_end(occurrence.key)
        return fresh

    def ended(self, now: float) -> Iterator[Series]:
        """What has not happened for long and has a count to be written.

        Forgotten when the next one is asked for: one whose writing fails is yielded again.
        """
        while self._series:
            key, series = next(iter(self._series.items()))
            full = len(self._series) > self.limits.objects
            if not full and now - series.last <= self.limits.series_within:
                return
            if series.count > series.written_count > 0:
                yield series
            self._series.pop(key, None)

    def _allowed(self, occurrence: Occurrence) -> bool:
        limits, at = self.limits, occurrence.at
        bucket = self._buckets.setdefault(occurrence.regarding, _Bucket(limits.burst, at))
        self._buckets.move_to_end(occurrence.regarding)
        if len(self._buckets) > limits.objects:
            self._buckets.popitem(last=False)
        earned = max(0.0, at - bucket.at) / limits.refill
        bucket.tokens = min(float(limits.burst), bucket.tokens + earned)
        bucket.at = max(bucket.at, at)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def shorten(note: str) -> str:
    """At most 1024 bytes of UTF-8, cut between characters."""
    encoded = note.encode()
    if len(encoded) <= NOTE_LIMIT:
        return note
    return encoded[: NOTE_LIMIT - 3].decode(errors="ignore") + "..."
