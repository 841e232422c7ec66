"""
Collecting a store: packs that no manifest names go after a grace time. docs/decisions/0021.

Called by: `kyb gc`, agents that the controller asks. Beside writers, wakes and other collectors,
each of which may die at any step.
Memory: manifests are read READERS at once, 64 MiB each at most, and only names of packs are kept.
Rule: nothing is deleted but what a sweep names that was in the store before intents, and then
manifests, were looked at. Rule: what cannot be read or believed protects every pack it could name.
Rule: the store's own clock counts; one that jumps costs time, or whoever seals has to do it again.
"""

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from kybernate.artifacts import collection, names
from kybernate.artifacts.collection import Seen
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import MAX_PACKS
from kybernate.artifacts.signing import Trusted
from kybernate.clients.clock import Clock
from kybernate.clients.copies import Collected
from kybernate.clients.errors import Refused, Retry
from kybernate.decisions import sweeping
from kybernate.decisions.sweeping import DomainView, StoredPack, Sweep
from kybernate.ladder import reading
from kybernate.model.checkpoint import Flaw
from kybernate.stores.errors import Absent
from kybernate.stores.port import Listed, Store

READERS = 4
_DELETERS = 8
BATCH = 4096  # packs of one sweep
TERM_S = 600.0  # of a sweep; what is left then waits for the next collector
STALE_S = 3600.0  # an intent or a sweep as old as this was left behind, if it stays as long again


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A domain, and what is to be done; `alone` says why nothing is, where that is so."""

    domain: str
    view: DomainView
    sweep: Sweep
    alone: str = ""

    def size(self, packs: Iterable[str]) -> int:
        """Bytes of these packs."""
        return sum(self.view.packs[name].size for name in packs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A domain, what was found there, and which packs went, or would."""

    found: Found
    gone: tuple[str, ...]

    @property
    def told(self) -> Collected:
        """In numbers."""
        found, waiting = self.found, self.found.sweep.waiting
        if found.alone:
            return Collected(domain=found.domain, waiting=len(found.view.packs), alone=found.alone)
        return Collected(
            domain=found.domain,
            named=len(found.view.packs) - len(waiting) - len(found.sweep.going),
            waiting=len(waiting),
            next_seconds=min(waiting.values(), default=0.0),
            gone=len(self.gone),
            size=found.size(self.gone),
        )


class Collecting:
    """One collector. `grace` is in seconds; `ended` ends it between two packs."""

    def __init__(
        self,
        store: Store,
        trusted: Trusted,
        clock: Clock,
        grace: float,
        ended: threading.Event | None = None,
    ) -> None:
        self._store, self._trusted, self._clock, self._grace = store, trusted, clock, grace
        self._ended = ended or threading.Event()

    def domains(self) -> list[str]:
        """Those that have a key or a pack."""
        found = (one.key.split("/") for one in self._store.list(names.DOMAINS))
        return sorted({parts[1] for parts in found if len(parts) > 3})

    def plan(self, domain: str) -> Found:
        """What would be done, by our own clock; nothing is changed."""
        return self._found(domain, self._seen(domain), self._clock.now())

    def planned(self, domain: str) -> Done:
        """The same, as if it were done."""
        found = self.plan(domain)
        return Done(found=found, gone=found.sweep.going)

    def collect(self, domain: str) -> Done:
        """Do it. Raises what the store raises; done again, it goes on from what is there."""
        with self._sweeping(domain) as sweep:
            try:
                now = self._store.stat(sweep).put_at
            except Absent:
                return Done(found=_alone(domain, "another collector took us for dead"), gone=())
            seen = self._seen(domain)
            left = self._clear(domain, sweep, seen, now)
            found = self._found(domain, seen, now)
            if found.alone:
                return Done(found=found, gone=())
            gone: list[str] = []
            going = found.sweep.going
            for at in range(0, len(going), BATCH):
                gone += self._swept(found, sweep, going[at : at + BATCH])
            unnamed = {one: at for one, at in found.sweep.since.items() if one not in set(gone)}
            self._remember(domain, seen, Seen(unnamed=_oldest(unnamed), left=left))
            return Done(found=found, gone=tuple(gone))

    @contextmanager
    def _sweeping(self, domain: str) -> Iterator[str]:
        """Our sweep, which names nothing yet."""
        key = f"{collection.sweeps(domain)}/{uuid.uuid4().hex}"
        self._store.put(key, collection.encode(()))
        try:
            yield key
        finally:
            with suppress(Refused, Retry):  # one that stays names what is gone, or what waits
                self._store.delete(key)

    def _clear(self, domain: str, ours: str, seen: Seen, now: float) -> dict[str, float]:
        """Away with what the dead have left, before anything is looked at: what was old already
        when a collector saw it long ago, so that a clock that jumps once makes nobody dead. What
        is old now, and since when it was seen so."""
        left: dict[str, float] = {}
        for prefix in (collection.sweeps(domain), collection.intents(domain)):
            for one in list(self._store.list(prefix)):
                if one.key == ours or now - one.put_at <= STALE_S:
                    continue
                left[one.key] = min(now, seen.left.get(one.key, now))
                if now - left[one.key] > STALE_S:
                    self._store.delete(one.key)
                    del left[one.key]
        return _oldest(left)

    def _found(self, domain: str, seen: Seen, now: float) -> Found:
        packs = {
            listed.key.rsplit("/", 1)[1]: StoredPack(size=listed.size, put_at=listed.put_at)
            for listed in self._store.list(f"{names.DOMAINS}/{domain}/packs")
            if _is_pack(listed, domain)
        }
        view = DomainView(packs=packs, since=seen.unnamed)
        try:
            view = replace(view, intended=self._intended(domain), named=self._named(domain))
        except Unusable as problem:
            return _alone(domain, str(problem), view)
        return Found(domain=domain, view=view, sweep=sweeping.sweep(view, now, self._grace))

    def _seen(self, domain: str) -> Seen:
        """What cannot be read is forgotten: then all waits anew."""
        try:
            content = self._store.get(collection.seen_key(domain), 0, collection.MAX_OBJECT + 1)
            return collection.decode_seen(content)
        except (Absent, Unusable):
            return Seen()

    def _remember(self, domain: str, before: Seen, seen: Seen) -> None:
        if seen != before:
            self._store.put(collection.seen_key(domain), collection.encode_seen(seen))

    def _intended(self, domain: str) -> frozenset[str]:
        """Raises Unusable where one cannot be read."""
        found: set[str] = set()
        for listed in list(self._store.list(collection.intents(domain))):
            with suppress(Absent):
                content = self._store.get(listed.key, 0, collection.MAX_OBJECT + 1)
                found |= _told(listed.key, content)
        return frozenset(found)

    def _named(self, domain: str) -> frozenset[str]:
        """By all manifests that could. Raises Unusable where one cannot be believed."""
        below = names.MANIFESTS if "." in domain else f"{names.MANIFESTS}/{domain}"
        with ThreadPoolExecutor(READERS, thread_name_prefix="collecting") as threads:
            each = threads.map(
                lambda listed: self._named_by(listed, domain), list(self._store.list(below))
            )
            return frozenset().union(*each)

    def _named_by(self, listed: Listed, domain: str) -> frozenset[str]:
        parts = listed.key.split("/")
        try:
            if len(parts) != 3:
                raise Unusable(Flaw.BAD_NAME, "no manifest stands there")
            manifest = reading.opened(self._store, parts[1], parts[2], self._trusted).manifest
        except Unusable as problem:
            if problem.reason is Flaw.ABSENT:
                return frozenset()
            raise Unusable(problem.reason, f"{listed.key}: {problem.detail}") from problem
        if manifest.domain != domain:
            return frozenset()
        return frozenset(pack.name for pack in manifest.packs)

    def _swept(self, found: Found, sweep: str, going: Sequence[str]) -> list[str]:
        """Those that went. First the sweep names them, then intents are looked at, then manifests:
        who is about to name one has either been seen, or sees the sweep."""
        self._store.put(sweep, collection.encode(going))
        until = self._clock.monotonic() + TERM_S
        try:
            kept = self._intended(found.domain)
            kept |= self._named(found.domain)
        except Unusable:
            return []
        doomed = [name for name in going if name not in kept]
        with ThreadPoolExecutor(_DELETERS, thread_name_prefix="collecting") as threads:
            went = list(threads.map(lambda name: self._deleted(found, sweep, name, until), doomed))
        return [name for name, gone in zip(doomed, went, strict=True) if gone]

    def _deleted(self, found: Found, sweep: str, pack: str, until: float) -> bool:
        """Whether it went: not where we were taken for dead, are called off, or took too long."""
        if self._ended.is_set() or self._clock.monotonic() > until:
            return False
        try:
            self._store.stat(sweep)
        except Absent:
            return False
        self._store.delete(names.pack_key(found.domain, pack))
        return True


def _alone(domain: str, why: str, view: DomainView | None = None) -> Found:
    nothing = Sweep(going=(), waiting={}, since={})
    return Found(domain=domain, view=view or DomainView(packs={}), sweep=nothing, alone=why)


def _oldest(since: Mapping[str, float]) -> dict[str, float]:
    """As many as are kept."""
    return dict(sorted(since.items(), key=lambda one: one[1])[:MAX_PACKS])


def _is_pack(listed: Listed, domain: str) -> bool:
    """Whether it stands where a pack does; anything else is not ours to delete."""
    return listed.key == names.pack_key(domain, listed.key.rsplit("/", 1)[1])


def _told(key: str, content: memoryview) -> frozenset[str]:
    try:
        return collection.decode(content)
    except Unusable as problem:
        raise Unusable(problem.reason, f"{key}: {problem.detail}") from problem
