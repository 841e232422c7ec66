"""
The tier `object`: checkpoints of this node demoted into the store that its agent was given, and
fetched from there.

Called by: the Copies service (for the controller), whoever wakes, the registry's inventory. What
lies there is what lies on a node (docs/reference/checkpoint-format.md): packs go and come as they
are, and the manifest as it was signed.
Rule: the store is not trusted: signatures, domain keys, tags and names are checked, and only the
whole becomes visible. Rule: whoever waits for a wake goes before what is carried in the
background. Rule: what was interrupted goes on from what is there, here and in the store.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from kybernate.artifacts import names
from kybernate.artifacts.faults import Unusable
from kybernate.clients.backoff import Pace
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.ladder import carrying, copying, reading, writing
from kybernate.ladder.collecting import Collecting, Done
from kybernate.ladder.keyring import BadKeys, KeyRing
from kybernate.ladder.progress import Course, Ended
from kybernate.ladder.reading import Opened
from kybernate.model.artifact import Artifact, Kind
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.logs import get_logger
from kybernate.stores import places
from kybernate.stores import port as stores
from kybernate.stores.link import Link, Yielding
from kybernate.stores.retrying import Retrying
from nodeagent.checkpoints import fetching, rows
from nodeagent.checkpoints.faults import Cancelled, PeerAway
from nodeagent.checkpoints.fetching import Tell, Use, Wanted
from nodeagent.checkpoints.sealed import Sealed, Shelf
from nodeagent.checkpoints.store import Store, admit

_TRIES, _PACE = 9, Pace(first=0.25, longest=15.0)  # some forty seconds for each object
Listener = Callable[[Kind, Artifact, str], None]
Measured = Callable[[int, float], None]
"""Bytes that came from the store, and seconds."""


class NoStore(Retry):
    """This agent was given no store, or its keys cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the settings say: where the store is (nowhere: empty)."""

    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demoted:
    """Bytes of the checkpoint, and bytes that were put for it."""

    size: int
    written: int


class Objects:
    """Thread safe. `link` is shared by all that move."""

    def __init__(
        self,
        given: Given,
        here: Store,
        clock: Clock,
        measured: Measured = lambda *_: None,
        store: stores.Store | None = None,
    ) -> None:
        """`store` in place of the one of that place. Raises BadPlace, OSError."""
        self._given, self._here, self._clock, self._measured = given, here, clock, measured
        self._store = store or (places.store(given.place, os.environ) if given.place else None)
        self.link = Link()
        self._lock = threading.Lock()
        self._ends: dict[tuple[str, str], threading.Event] = {}
        self.listener: Listener = lambda *_: None
        """Hears of copies there that came, went, or were compared."""

    @property
    def given(self) -> bool:
        """Whether there is a store at all."""
        return self._store is not None

    @property
    def store(self) -> stores.Store | None:
        """Itself, one try each, for whoever keeps other things there and shares `link`."""
        return self._store

    def demote(
        self,
        wanted: Wanted,
        told: Tell = lambda _: None,
        ended: threading.Event | None = None,
    ) -> Demoted:
        """Have the store hold the checkpoint that is here; one that it has costs no byte.

        Raises Unusable (ABSENT: it is not here), AnotherThere, NoStore, Cancelled, PeerAway, and
        Refused as the store says no; what was put stays for the next time.
        """
        course = self._course(told, ended)
        with (
            self._here.using(wanted.namespace, wanted.name),
            self._under_way(wanted, course.ended),
            self._way(course) as store,
        ):
            sealed = self._here.peek(wanted.namespace, wanted.name)
            admit(sealed, None, wanted.signature)
            written = self._put(sealed, store, course)
        get_logger().info(
            "checkpoint demoted", checkpoint=wanted.name, bytes=sealed.size, written=written
        )
        return Demoted(size=sealed.size, written=written)

    def _put(self, sealed: Sealed, store: stores.Store, course: Course) -> int:
        """Its packs as they are; how many bytes. Raises AnotherThere, and as `copying.copy`."""
        before = carrying.there_already(store, sealed, self._here.keys.trusted)
        if before is not None and carrying.is_whole(before, writing.there(store, before.domain)):
            return 0
        manifest, ring = sealed.manifest, self._ring()
        key = self._here.shelf.key(manifest)
        ring.lend(store, manifest.domain, key)
        try:
            written = copying.copy(self._here.shelf.store, store, sealed.opened, key, course)
        except Unusable as problem:
            self._here.damaged(sealed, problem)
            raise
        self.listener(Kind.COPIED, rows.artifact_of(sealed), "")
        return written

    def call_off(self, namespace: str, name: str) -> None:
        """End what is being demoted of it, where that is so."""
        with self._lock:
            ended = self._ends.get((namespace, name))
        if ended is not None:
            ended.set()

    def fetch(
        self,
        wanted: Wanted,
        told: Tell = lambda _: None,
        cancelled: threading.Event | None = None,
        *,
        use: Use | None = None,
    ) -> Sealed:
        """It, verified, on this node, as `Peers.fetch` says; whoever is to `use` it waits for it,
        and goes first.

        Raises Unusable, NoRoom, NotSealed, Cancelled, PeerAway, NoStore.
        """
        with self._here.alone(wanted.namespace, wanted.name):
            there = fetching.here_already(self._here, wanted, use)
            if there is not None:
                return there
            course = self._course(told, cancelled)
            with self._way(course, hurry=use is not None) as store:
                return self._fetched(store, wanted, course, use)

    def flaw(self, wanted: Wanted, ended: threading.Event | None = None) -> str:
        """What is wrong with the copy in the store, every byte of it compared; empty: nothing.

        Raises NoStore, PeerAway, Cancelled.
        """
        course = self._course(lambda _: None, ended)
        try:
            with self._way(course) as store:
                opened = self._opened(store, wanted)
                self._shelf(store).check(opened, course)
        except Unusable as problem:
            self._compared(wanted, str(problem))
            return str(problem)
        self.listener(Kind.VERIFIED, rows.of_opened(opened), "")
        return ""

    def _compared(self, wanted: Wanted, flaw: str) -> None:
        """Of a copy that is damaged: what is here of it tells whose it is."""
        with suppress(Unusable):
            sealed = self._here.peek(wanted.namespace, wanted.name)
            if sealed.signature == wanted.signature:
                self.listener(Kind.DAMAGED, rows.artifact_of(sealed), flaw)

    def remove(self, wanted: Wanted) -> Artifact | None:
        """Have its manifest gone from the store, where it is this very one; what was there.

        Packs that no other manifest names are left to whoever collects there. Raises Unusable for
        another one, NoStore, PeerAway.
        """
        course = self._course(lambda _: None, None)
        with self._way(course) as store:
            try:
                opened = self._opened(store, wanted)
            except Unusable as problem:
                if problem.reason is Flaw.ABSENT:
                    return None
                raise
            store.delete(names.manifest_key(wanted.namespace, wanted.name))
        gone = rows.of_opened(opened)
        self.listener(Kind.REMOVED, gone, "")
        return gone

    def collect(self, grace: float, ended: threading.Event, *, dry_run: bool) -> Iterator[Done]:
        """Have packs go that no manifest has named for `grace` seconds, or say which would: each
        domain when it is done. Beside whoever else does, and whoever seals or wakes.

        Raises NoStore, PeerAway, Cancelled.
        """
        with self._way(self._course(lambda _: None, ended)) as store:
            collecting = Collecting(store, self._here.keys.trusted, self._clock, grace, ended)
            done = collecting.planned if dry_run else collecting.collect
            for domain in collecting.domains():
                yield done(domain)

    def artifacts(self) -> Iterator[Artifact]:
        """Every checkpoint in the store whose manifest we believe. Raises NoStore, PeerAway."""
        with self._way(self._course(lambda _: None, None)) as store:
            for one in list(store.list(names.MANIFESTS)):
                parts = one.key.split("/")
                try:
                    opened = reading.opened(store, parts[1], parts[-1], self._here.keys.trusted)
                except Unusable as problem:
                    get_logger().warning("not usable", manifest=one.key, why=str(problem))
                else:
                    yield rows.of_opened(opened)

    @contextmanager
    def _under_way(self, wanted: Wanted, ended: threading.Event) -> Iterator[None]:
        key = (wanted.namespace, wanted.name)
        with self._lock:
            self._ends[key] = ended
        try:
            yield
        finally:
            with self._lock:
                self._ends.pop(key, None)

    # the store, as it is to be asked now

    @contextmanager
    def _way(self, course: Course, *, hurry: bool = False) -> Iterator[stores.Store]:
        """Its errors become ours."""
        if self._store is None:
            raise NoStore("this agent was given no store for checkpoints (--checkpoint-store)")
        store = Retrying(self._store, self._clock, course.ended, tries=_TRIES, pace=_PACE)
        try:
            if hurry:
                with self.link.hurried():
                    yield store
            else:
                yield Yielding(store, self.link, course.check)
        except Ended as ended:
            raise Cancelled(str(ended)) from ended
        except BadKeys as problem:
            raise NoStore(f"its keys cannot be used: {problem}") from problem
        except PeerAway:
            raise
        except Retry as away:
            raise PeerAway(f"the store cannot be reached: {away}") from away

    def _course(self, told: Tell, ended: threading.Event | None) -> Course:
        return Course(self._clock, fetching.telling(told), ended)

    def _ring(self) -> KeyRing:
        """As the folders have it now: keys are rotated. Raises BadKeys."""
        return self._here.keys.ring()

    def _shelf(self, store: stores.Store) -> Shelf:
        return replace(self._here.shelf, store=store)

    # what is in it

    def _opened(self, store: stores.Store, wanted: Wanted) -> Opened:
        """Its manifest, which is that of what was published. Raises Unusable."""
        return fetching.published(store, self._here, wanted)

    def _fetched(
        self, store: stores.Store, wanted: Wanted, course: Course, use: Use | None
    ) -> Sealed:
        began = self._clock.monotonic()
        sealed, came = fetching.fetch(store, self._here, wanted, course, use)
        seconds = self._clock.monotonic() - began
        self._measured(came, seconds)
        get_logger().info(
            "checkpoint fetched", checkpoint=wanted.name, store=self._given.place,
            seconds=round(seconds, 3), bytes=came, were_here=sealed.manifest.packed - came,
        )  # fmt: skip
        return sealed
