"""
The depot: contents of parked workloads that left the node's NVMe, in the object store that the
agent was given.

Called by the stories (store, fetch, promote, resume, seal), by recovery, and by a thread of its own
that removes. What lies there is what lay in the cellar, byte for byte, below `parked/NODE/UID.COPY`
and beside what the cluster's checkpoints are made of, which nobody touches here. Rule: the store is
not trusted, and what it does not give now it may give later: nothing that it does makes a copy
count as lost. Rule: what is to go is removed whenever the store answers; until then its name is not
used again. Rule: whoever waits goes before whatever is carried in the background.
"""

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from kybernate.artifacts import names
from kybernate.artifacts.faults import Unusable
from kybernate.clients.backoff import Pace
from kybernate.clients.clock import Clock
from kybernate.clients.errors import Refused, Retry
from kybernate.ladder.progress import Course
from kybernate.ladder.writing import is_there
from kybernate.model.checkpoint import Flaw
from kybernate.model.ids import NodeName
from kybernate.model.tier import Room
from kybernate.runtime.logs import get_logger
from kybernate.stores import errors as stores
from kybernate.stores.below import Below
from kybernate.stores.link import Link, Yielding
from kybernate.stores.port import Store
from kybernate.stores.retrying import Retrying
from nodeagent.disk.pool import Damaged, NoRoom
from nodeagent.looking import Looking
from nodeagent.lowered import Keys, Lowered, Lying, Place

PARKED = "parked"  # beside `manifests` and `domains`
LOOK_S, AGAIN_S = 1.0, 15.0  # between two looks at what is to go; and where the store is away
REACH_S = 10.0  # for a manifest and a listing of some thousand packs
_TRIES = 6  # of each object, in the background
_TRIES_WAITED = 4  # where somebody waits: three seconds, then its turn passes and comes again
_PACE = Pace(first=0.25, longest=15.0)
_ENDED_S = 0.05  # between two looks at whether it is called off
_NEVER = threading.Event()


class OutOfReach(Retry):
    """What the object store has of it cannot be had now. It may be, later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A copy that the journal names: whose, its token, the card's bytes, and whether it is what
    counts, or only may have been begun."""

    uid: str
    token: str
    size: int
    counts: bool


@dataclass(slots=True)
class _Held:
    """One that is there, or may be: the card's bytes, who is at it, whether it is to go, and
    whether all of it was seen there."""

    size: int
    busy: int = 0
    doomed: bool = False
    whole: bool = False

    @property
    def idle(self) -> bool:
        """Begun, and left for the next time: it goes where another needs its room."""
        return not (self.whole or self.busy or self.doomed)


class Depot:
    """Thread safe for different workloads. `limit` is in card bytes; with 0, and without a store,
    nothing is ever kept."""

    def __init__(
        self,
        store: Store | None,
        node: NodeName,
        limit: int,
        secret: bytes,
        clock: Clock,
        link: Link | None = None,
    ) -> None:
        """Nothing is asked of the store yet. Raises BadKey for a node that no key can name."""
        self._store = Below(store, f"{PARKED}/{node}") if store is not None else None
        self._limit, self._keys, self._clock = limit, Keys(secret), clock
        self._link = link or Link()
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._begun: dict[str, int] = {}  # may be there; found out by the first listing
        self._left_alone: frozenset[str] = frozenset()  # uids of records that nobody could read
        self._stuck: set[str] = set()  # cannot be removed, and that was told
        self._known = self._listed = self._away = False
        self._looking = Looking("depot", self.look, clock, AGAIN_S)

    @property
    def given(self) -> bool:
        """Whether there is a store."""
        return self._store is not None

    def start(self) -> None:
        """Remove what nobody names, from now on; returns at once."""
        if self.given:
            self._looking.start()

    def stop(self) -> None:
        """End; what is still to go is removed after the next start."""
        self._looking.stop()

    def room(self) -> Room:
        """The limit and what is there, but for what was only begun; full while the store does not
        answer."""
        with self._lock:
            used = sum(one.size for one in self._held.values() if not one.idle)
            away = self._away
        return Room(capacity=used if away or not self.given else self._limit, used=used)

    def names(self) -> tuple[str, ...]:
        """Whose copies, whole or not, are there and not to go."""
        with self._lock:
            held = [name for name, one in self._held.items() if not one.doomed]
        return tuple(sorted({_uid(name) for name in held}))

    def known(self, named: Iterable[Named], unreadable: Collection[str]) -> None:
        """What the journal names, at the start: anything else that is found there goes, but what
        may belong to these uids."""
        with self._lock:
            for one in named:
                name = _name(one.uid, one.token)
                if one.counts:
                    self._held[name] = _Held(one.size, whole=True)
                else:
                    self._begun[name] = one.size
            self._left_alone, self._known = frozenset(unreadable), True

    # moving

    def keep(self, uid: str, token: str, size: int, lying: Lying, course: Course) -> None:
        """The copy that lies in the cellar, of so many card bytes; durable when it returns. What of
        it is there already is not put again.

        Raises NoRoom, Damaged (what lies in the cellar), Ended, OutOfReach, Refused; what was put
        stays, for the next time, until it is dropped or another one needs its room.
        """
        name = _name(uid, token)
        self._reserve(name, size)

        def put(under: Course) -> None:
            try:
                lying.copy_to(self._yielding(name, under), under)
            except Unusable as problem:
                raise Damaged(f"the copy in the cellar: {problem}") from problem

        with self._told():
            self._aside(name, put, course)

    def verify(self, uid: str, token: str, course: Course) -> None:
        """Read every byte back. What is not right goes. Raises OutOfReach, Ended, Refused."""
        name = _name(uid, token)
        try:
            with self._told():
                self._aside(name, lambda under: self._verified(name, token, under), course)
        except _NotRight:
            self.drop(uid)
            raise
        with self._lock:
            if (one := self._held.get(name)) is not None:
                one.whole = True

    def _verified(self, name: str, token: str, course: Course) -> None:
        self._keys.lying(self._yielding(name, course), token).verify(course)

    def lying(self, uid: str, token: str, course: Course) -> Lying:
        """The copy, to be carried on in the background. Raises OutOfReach, Refused."""
        with self._told():
            return self._keys.lying(self._yielding(_name(uid, token), course), token)

    def reach(self, uid: str, token: str) -> None:
        """Whether it could be had now: its manifest is right, its packs are there. Who waits for
        the same GPU does not wait for a store that hangs. Raises OutOfReach, Refused."""
        asked = ThreadPoolExecutor(1, "depot-reach")
        try:
            with self._told():
                asked.submit(self._reached, _name(uid, token), token).result(REACH_S)
        except TimeoutError:
            self._away = True
            raise OutOfReach(f"the object store does not answer within {REACH_S:g} s") from None
        finally:
            asked.shutdown(wait=False)

    def _reached(self, name: str, token: str) -> None:
        store = self._trying(name, _NEVER, _TRIES_WAITED)
        manifest = self._keys.lying(store, token).opened.manifest
        there = {one.key: one.size for one in store.list(names.DOMAINS)}
        for pack in manifest.packs:
            if not is_there(manifest.domain, pack, there):
                raise Unusable(Flaw.PACK_MISSING, pack.name)

    def slot(
        self, uid: str, token: str, *, hurried: bool, ended: threading.Event | None = None
    ) -> Lowered:
        """The copy as it is; nothing is read yet. `hurried`: somebody waits for it. `ended`: what
        calls reading off, between two objects and two tries."""
        name, course = _name(uid, token), Course(self._clock, ended=ended)

        def opened() -> Lying:
            if not hurried:
                return self.lying(uid, token, course)
            return self._keys.lying(self._trying(name, course.ended, _TRIES_WAITED), token)

        way = self._link.hurried if hurried else nullcontext
        return Lowered(uid, opened, Place(told=self._told, clock=self._clock, way=way))

    @contextmanager
    def told(self) -> Iterator[None]:
        """What reading a copy of ours raises, in our words."""
        with self._told():
            yield

    def drop(self, uid: str) -> None:
        """Nothing of this workload's is needed there any more. Returns at once, and never raises:
        it goes when the store answers, and cannot be read without its token. Twice is fine."""
        with self._lock:
            for name in [one for one in self._begun if _uid(one) == uid]:
                del self._begun[name]
            for name, one in self._held.items():
                one.doomed |= _uid(name) == uid
            self._left_alone -= {uid}

    def look(self) -> float:
        """One look at what is to go; seconds until the next."""
        try:
            self._look()
        except (Refused, Retry) as problem:
            if not self._away:
                get_logger().warning("the object store does not answer", why=str(problem))
            self._away = True
            return AGAIN_S
        self._away = False
        return LOOK_S

    def _look(self) -> None:
        if self._store is None:
            return
        if self._known and not self._listed:
            self._find({one.key.partition("/")[0] for one in self._store.list()})
            self._listed = True
        elif self._away:
            next(iter(self._store.list()), None)
        with self._lock:
            going = [name for name, one in self._held.items() if one.doomed and not one.busy]
        for name in going:
            try:
                self._clear(self._store, name)
            except Refused as problem:  # of this one: it goes on counting, and others go
                self._tell_once(name, str(problem))

    def _tell_once(self, name: str, why: str) -> None:
        if name not in self._stuck:
            get_logger(copy=name).error("a copy in the object store cannot be removed", why=why)
        self._stuck.add(name)

    def _find(self, there: Collection[str]) -> None:
        with self._lock:
            for name in there - self._held.keys():
                begun = self._begun.get(name)
                self._held[name] = _Held(begun or 0, doomed=begun is None)
                if _uid(name) in self._left_alone:
                    self._held[name] = _Held(begun or 0, whole=True)
            strangers = sum(one.doomed for one in self._held.values())
        if strangers:
            get_logger().warning(
                "copies in the object store that are nobody's go", copies=strangers
            )

    def _clear(self, store: Store, name: str) -> None:
        """All of a copy; its manifest first, so that nothing is ever half there."""
        for listed in sorted(store.list(name), key=lambda one: one.key, reverse=True):
            store.delete(listed.key)
        with self._lock:
            self._held.pop(name, None)
        self._stuck.discard(name)

    # the store, as it is asked now

    def _reserve(self, name: str, size: int) -> None:
        with self._lock:
            if self._store is None or not self._limit:
                raise NoRoom("nothing of what is parked goes into the object store")
            one = self._held.get(name)
            if one is not None and (one.doomed or one.busy):
                raise OutOfReach("what is there of it is being removed first")
            self._make_room(size, [o for n, o in self._held.items() if n != name])
            self._held[name] = _Held(size)
            self._begun.pop(name, None)

    def _make_room(self, size: int, others: Collection[_Held]) -> None:
        """Beside these. What was only begun of them gives way. Raises NoRoom, OutOfReach."""
        left = self._limit - sum(one.size for one in others)
        idle = [one for one in others if one.idle]
        if size > left + sum(one.size for one in idle):
            raise NoRoom(f"{size / 2**30:.2f} GiB needed, {max(0, left) / 2**30:.2f} GiB left")
        if size <= left:
            return
        for one in idle:
            if size > left:
                one.doomed = True
                left += one.size
        raise OutOfReach("what was begun of others, and not ended, is being removed first")

    def _aside(self, name: str, work: Callable[[Course], None], course: Course) -> None:
        """Done, or called off at once: whoever wants the workload does not wait for objects that
        are on their way. Until those have ended its name is not used. The work has a course of its
        own, since the story's may go on for the next one, and no more objects follow."""
        course.check()
        done: Future[None] = Future()
        apart = course.apart()
        with self._lock:
            held = self._held.setdefault(name, _Held(0))
            held.busy += 1

        def run() -> None:
            try:
                work(apart)
            except BaseException as error:  # told to whoever waits for it
                done.set_exception(error)
            else:
                done.set_result(None)
            finally:
                with self._lock:
                    held.busy -= 1

        threading.Thread(target=run, name="depot-move", daemon=True).start()
        try:
            while not wait([done], _ENDED_S).done:
                course.check()
        except BaseException:
            apart.ended.set()
            raise
        done.result()

    def _trying(self, name: str, ended: threading.Event, tries: int) -> Store:
        if self._store is None:
            raise OutOfReach("this agent was given no object store (--checkpoint-store)")
        return Retrying(Below(self._store, name), self._clock, ended, tries=tries, pace=_PACE)

    def _yielding(self, name: str, course: Course) -> Store:
        return Yielding(self._trying(name, course.ended, _TRIES), self._link, course.check)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What artifacts and stores say, in our words: never that it is lost."""
        try:
            yield
        except Unusable as problem:
            raise _NotRight(f"its copy in the object store: {problem}") from problem
        except stores.NoRoom as problem:
            raise NoRoom(str(problem)) from problem
        except OutOfReach:
            raise
        except stores.Away as problem:
            self._away = True
            raise OutOfReach(f"the object store does not answer: {problem}") from problem


class _NotRight(OutOfReach):
    """What the store gave is not what was put."""


def _name(uid: str, token: str) -> str:
    """Of a copy there: of the same one always the same, of another one another."""
    return f"{uid}.{hashlib.blake2b(token.encode(), digest_size=8).hexdigest()}"


def _uid(name: str) -> str:
    return name.partition(".")[0]
