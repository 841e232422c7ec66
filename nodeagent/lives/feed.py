"""
What happens, as it happens, for whoever listens: clients that wait, watchers, the status writer.

Rule: publishing never blocks. A listener that does not keep up loses the oldest updates that only
show progress, never one that says how something ended.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.verdict import Reason
from kybernate.model.workload import State
from nodeagent.lives.phases import PhaseTime

_KEPT = 256  # updates a listener may lag behind; one switch of a big workload has about a hundred


class Doing(StrEnum):
    """What is going on with a workload."""

    WAITING = "waiting"
    PARKING = "parking"
    RESUMING = "resuming"
    VERIFYING = "verifying"
    SEALING = "sealing"
    WAKING = "waking"
    DEMOTING = "demoting"
    PROMOTING = "promoting"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an attempt ended. `reason` is empty where a failure has no constant."""

    ok: bool
    reason: Reason | None = None
    message: str = ""
    phases: tuple[PhaseTime, ...] = ()
    checkpoint: str = ""  # the name of the one that was sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One change of one workload. Bytes are the card's; those of the checkpoint while it is fetched
    for a wake."""

    key: WorkloadKey
    uid: PodUid
    state: State
    doing: Doing
    done: int = 0
    total: int = 0
    seconds_left: float = 0.0
    message: str = ""
    ended: Ended | None = None


class Hears(Protocol):
    """Whoever is told in the publisher's own thread: be quick."""

    def put(self, update: Update) -> None:
        """One update."""


class Listener:
    """A place in the feed. Take with `next`, or nothing comes of it."""

    def __init__(self) -> None:
        self._updates: deque[Update] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, update: Update) -> None:
        """From the feed."""
        with self._changed:
            if len(self._updates) >= _KEPT:
                self._forget_progress()
            self._updates.append(update)
            self._changed.notify_all()

    def _forget_progress(self) -> None:
        oldest = next((u for u in self._updates if u.ended is None), self._updates[0])
        self._updates.remove(oldest)

    def next(self, seconds: float) -> Update | None:
        """The next update, or None when the seconds are over or the feed is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._updates or self._closed, seconds)
            return self._updates.popleft() if self._updates else None

    @property
    def closed(self) -> bool:
        """Nothing will come any more."""
        return self._closed

    def close(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Feed:
    """Thread safe."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._attached: list[Hears] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Everything published from here on."""
        listener = Listener()
        with self._lock:
            self._listeners.append(listener)
            if self._closed:
                listener.close()
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def attach(self, hears: Hears) -> None:
        """Told of everything, before all listeners, for as long as the feed lives."""
        self._attached.append(hears)

    def publish(self, update: Update) -> None:
        """Tell everybody."""
        with self._lock:
            listeners = (*self._attached, *self._listeners)
        for listener in listeners:
            listener.put(update)

    def close(self) -> None:
        """The agent stops: nobody waits any longer."""
        with self._lock:
            self._closed = True
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener.close()
