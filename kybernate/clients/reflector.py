"""
A live copy of one kind of objects: listed in pages, then watched, for as long as it runs.

Called by: every process that needs a view of the cluster. Rules: it goes on from where it was after
a broken connection and lists again only when the server has forgotten that place (410); a silent
connection is a broken one; failures are paced with jitter; nothing the network does ends it.
Rule: `synced` says that there is a copy, `broken_seconds` how long nobody has heard whether it is
still true; who serves from it is not ready when that is long (`unready`).

`on_change` runs in the reflector's thread, after the copy has changed, one change at a time. What
it or `project` raises is logged and counted, never fatal: an object whose projection fails is left
out, as the object is when `project` returns None.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, Unpack, cast

import structlog

from kybernate.clients.backoff import Backoff, Pace
from kybernate.clients.errors import ApiError, Gone
from kybernate.clients.kube import Kube, Obj, Selectors, Watch
from kybernate.clients.resources import Resource
from kybernate.clients.store import ADDED, DELETED, MODIFIED, Change, ChangeKind, Key, Store, key_of

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "Change",
    "ChangeKind",
    "Key",
    "Reflector",
    "Timing",
    "unready",
]

T = TypeVar("T")

# Longer than a restart of the API server and the pauses between tries. What was listed is served on
# until then: an old view of the cluster is better than none.
PATIENCE_S = 90.0
_JOIN_S = 5.0  # a thread that hangs in connect or in the first answer is left to end by itself


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The server ends a watch after `watch`; bookmarks come every minute, so a connection
    without a byte for `silence` is dead."""

    watch: int = 300
    silence: float = 90.0
    pace: Pace = field(default_factory=Pace)


class Selection(Selectors, total=False):
    """Which objects."""

    namespace: str | None


class Reflector(Generic[T]):
    """`start`, `wait_synced`, then `get` and `items` are never older than the last change seen."""

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        *,
        project: Callable[[Obj], T | None] | None = None,
        on_change: Callable[[Change[T]], None] | None = None,
        timing: Timing | None = None,
        **selection: Unpack[Selection],
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._namespace = selection.pop("namespace", None)
        self._selectors = cast(Selectors, selection)
        self._on_change = on_change
        self._timing = timing or Timing()
        self._store = Store(self._guarded(project or cast(Any, _identity)))
        self._backoff = Backoff(self._timing.pace)
        self._version = ""  # where the watch goes on; "" means list first
        self._synced = threading.Event()
        self._following = False
        self._broken_at: float | None = None  # since when no watch is open, once one was
        self._stopping = threading.Event()
        self._watch: Watch | None = None
        self._swap = threading.Lock()
        self._thread = threading.Thread(
            target=self._run, name=f"reflector-{resource.plural}", daemon=True
        )
        self._log = structlog.get_logger(resource=resource.plural)
        self.lists = 0  # how often it listed: once in its life when all goes well
        self.failures = 0  # of the connection, `project` and `on_change`

    @property
    def plural(self) -> str:
        """What it watches, as the API server names it."""
        return self._resource.plural

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch and wait for the thread, promptly. Safe to call twice."""
        self._stopping.set()
        with self._swap:
            if self._watch is not None:
                self._watch.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def wait_synced(self, timeout: float) -> bool:
        """Until everything of the first list has been seen, `on_change` included."""
        return self._synced.wait(timeout)

    @property
    def synced(self) -> bool:
        """Whether the first list is done."""
        return self._synced.is_set()

    @property
    def following(self) -> bool:
        """Whether a watch is open. Without one, silence says nothing."""
        return self._following

    @property
    def broken_seconds(self) -> float:
        """How long no watch is open, once the first list was done: as old may the copy be. 0 while
        one is. An orderly end and the next beginning, every few minutes, are a moment of it."""
        at = self._broken_at
        return 0.0 if at is None or self._following else time.monotonic() - at

    def get(self, key: Key) -> T | None:
        """The object at (namespace, name); namespace "" for cluster-scoped ones."""
        return self._store.get(key)

    def items(self) -> dict[Key, T]:
        """A copy of everything."""
        return self._store.items()

    def __enter__(self) -> "Reflector[T]":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = self._once()
            if pause:
                self._stopping.wait(pause)

    def _once(self) -> float:
        """List if need be, then watch until it ends; seconds to pause before the next time."""
        try:
            if not self._version:
                self._list()
            if self._follow():
                self._backoff.reset()
                return 0.0
            # A watch that ends at once without a word (a proxy's fault, often) is a failure too.
            return self._backoff.next()
        except Gone as problem:
            self._log.info("the server has forgotten our place", detail=problem.message)
            self._version = ""
            return self._backoff.next()
        except ApiError as problem:
            return self._failed(problem)
        except Exception as problem:  # a bug here must not freeze the view silently
            self._log.exception("reflector failed")
            self._version = ""
            return self._failed(problem)

    def _failed(self, problem: Exception) -> float:
        if self._stopping.is_set():
            return 0.0
        self.failures += 1
        pause = self._backoff.next(getattr(problem, "after", None))
        self._log.warning("the watch broke", detail=str(problem), retry_seconds=round(pause, 3))
        return pause

    def _list(self) -> None:
        seen: set[Key] = set()
        version = ""
        self.lists += 1
        for page in self._kube.pages(self._resource, self._namespace, **self._selectors):
            if self._stopping.is_set():
                return
            version = page.resource_version
            for obj in page.items:
                seen.add(key_of(obj))
                self._put(obj)
        self._tell(self._store.drop_others(seen))
        self._version = version
        self._broken_at = self._broken_at or time.monotonic()
        self._synced.set()

    def _follow(self) -> bool:
        """Watch until it ends; whether anything came of it."""
        if self._stopping.is_set():
            return True
        with self._open() as watch:
            self._following = True
            try:
                return self._take_all(watch)
            finally:
                self._broken_at = time.monotonic()
                self._following = False

    def _take_all(self, watch: Watch) -> bool:
        alive = False
        for event in watch:
            if self._stopping.is_set():
                return True
            alive = True
            self._backoff.reset()
            if event.kind == DELETED:
                self._tell(self._store.drop(key_of(event.obj)))
            elif event.kind != "BOOKMARK":
                self._put(event.obj)
            self._version = event.obj["metadata"]["resourceVersion"]
        return alive

    def _open(self) -> Watch:
        watch = self._kube.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            timeout_seconds=self._timing.watch,
            silence_seconds=self._timing.silence,
            **self._selectors,
        )
        with self._swap:
            self._watch = watch
            if self._stopping.is_set():
                watch.close()
        return watch

    def _put(self, obj: Obj) -> None:
        self._tell(self._store.put(obj))

    def _tell(self, changes: Iterable[Change[T]]) -> None:
        if self._on_change is None:
            return
        for change in changes:
            try:
                self._on_change(change)
            except Exception:
                self.failures += 1
                self._log.exception("a change was not taken", key="/".join(change.key))

    def _guarded(self, project: Callable[[Obj], T | None]) -> Callable[[Obj], T | None]:
        def guarded(obj: Obj) -> T | None:
            try:
                return project(obj)
            except Exception as problem:
                self.failures += 1
                self._log.warning(
                    "an object cannot be read", key="/".join(key_of(obj)), detail=str(problem)
                )
                return None

        return guarded


def unready(watches: Iterable["Reflector[Any]"]) -> str | None:
    """Why one who serves from these copies is not ready; None where all is well."""
    all_ = list(watches)
    waiting = sum(not watch.synced for watch in all_)
    if waiting:
        return f"{waiting} first lists are under way"
    oldest = max(all_, key=lambda watch: watch.broken_seconds, default=None)
    if oldest is not None and oldest.broken_seconds > PATIENCE_S:
        return f"the watch of {oldest.plural} is broken for {oldest.broken_seconds:.0f} s"
    return None


def _identity(obj: Obj) -> Obj:
    return obj
