"""
What is remembered of containers between their probes. Kept by `prober`.

Rule: nothing here cannot be lost: an agent that was restarted gives a container that still loads
the whole time for it again.
"""

import threading
from dataclasses import dataclass, field

from kybernate.decisions.probing import Course, Standing

# The kubelet asks three and a hook; whoever may `kubectl exec` could ask for ever more.
AT_ONCE = 16
_KEPT = 1024  # a node has tens


@dataclass(slots=True)
class _Run:
    """One container's: turns before this one in seconds, this one's start, when last looked at."""

    before: float = 0.0
    since: float | None = None
    looked: float = 0.0
    passed: bool = False
    began: Standing | None = None  # when its own command was last let run
    inside: int = 0  # probes being answered


@dataclass(slots=True)
class Courses:
    """Thread safe. Bounded: the oldest containers are forgotten first."""

    _by_container: dict[str, _Run] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, container: str) -> bool:
        """Whether one more of it may be answered now; `leave` follows then."""
        with self._lock:
            run = self._of(container)
            if run.inside >= AT_ONCE:
                return False
            run.inside += 1
            return True

    def leave(self, container: str) -> None:
        """It is answered."""
        with self._lock:
            run = self._of(container)
            run.inside = max(0, run.inside - 1)

    def begin(self, container: str, standing: Standing) -> None:
        """Its own command is run now."""
        with self._lock:
            self._of(container).began = standing

    def began(self, container: str) -> Standing | None:
        """How it stood then."""
        with self._lock:
            return self._of(container).began

    def course(self, container: str, standing: Standing, now: float, *, passed: bool) -> Course:
        """What is known of its loading by now."""
        with self._lock:
            run = self._of(container)
            if run.since != standing.active_since:
                run.before += max(0.0, run.looked - run.since) if run.since is not None else 0.0
                run.since = standing.active_since
            run.looked = now
            run.passed = run.passed or passed
            here = now - run.since if run.since is not None else 0.0
            return Course(ran=run.before + here, passed=run.passed)

    def _of(self, container: str) -> _Run:
        run = self._by_container.setdefault(container, _Run())
        while len(self._by_container) > _KEPT:
            del self._by_container[next(iter(self._by_container))]
        return run
