"""
What a person sees while minutes pass: a bar in a terminal, plain lines elsewhere.

Called by: `testbed.assets.cache` and `.compiler`, which tell it what goes on.
Rule: never silent for longer than HEARTBEAT_S, or a build log looks hung and gets killed.
"""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

HEARTBEAT_S = 20.0


class Display:
    """Keeps count of the steps and the time; subclasses show it. A context manager."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._seconds: dict[str, float] = {}
        self._names: list[str] = []
        self._step = ""
        self._step_started = self._started
        self._waits = 0.0

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def plan(self, seconds: Mapping[str, float]) -> None:
        """What will be built, in order, with the seconds each takes on two cores."""
        self._seconds, self._names = dict(seconds), list(seconds)
        self._started = self._clock()
        minutes = sum(self._seconds.values()) / 60
        self.show(f"building {', '.join(self._names)}: about {minutes:.0f} min on two cores")

    def begin(self, name: str) -> None:
        """A step starts."""
        self._step, self._step_started = name, self._clock()
        self.tick()

    def end(self, name: str) -> None:
        """The step is done, and counts as such from here on."""
        took = self._clock() - self._step_started
        self.show(f"built {name} in {took:.0f} s ({self._place()}, {self._total()})")

    def waiting(self, why: str) -> None:
        """Nothing is built yet, because of this; called again and again."""
        self._step = why
        self.tick()

    def tick(self) -> None:
        """Called a few times a second while something runs."""
        raise NotImplementedError

    def show(self, line: str) -> None:
        """A line worth keeping."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing more will come."""

    def _done(self) -> float:
        """Expected seconds that lie behind; within a step, no more than the step was given."""
        before = self._names[: self._names.index(self._step)] if self._step in self._names else []
        within = min(self._clock() - self._step_started, self._seconds.get(self._step, 0.0))
        return sum(self._seconds[name] for name in before) + within

    def _place(self) -> str:
        return f"{self._names.index(self._step) + 1} of {len(self._names)}"

    def _total(self) -> str:
        elapsed = self._clock() - self._started
        return f"{_clock_face(elapsed)} of about {_clock_face(elapsed + self._left())}"

    def _left(self) -> float:
        """Seconds still to come, at the pace of what lies behind: a busy machine takes longer."""
        expected, done = sum(self._seconds.values()), self._done()
        behind = self._clock() - self._started
        pace = behind / done if done else 1.0
        return (expected - done) * max(1.0, pace)

    def _line(self) -> str:
        if self._step not in self._names:
            return f"waiting: {self._step} ({_clock_face(self._clock() - self._started)})"
        return f"building {self._step} ({self._place()}, {self._total()})"


class Lines(Display):
    """Plain lines with the elapsed time, for logs."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._out = out
        self._spoke = self._started - HEARTBEAT_S
        self._said = ""

    def tick(self) -> None:
        silent = self._clock() - self._spoke
        if self._step != self._said or silent >= HEARTBEAT_S:
            self._said = self._step
            self.show(self._line())

    def show(self, line: str) -> None:
        self._spoke = self._clock()
        print(f"testbed: {line}", file=self._out, flush=True)


class Bar(Display):
    """One bar over all steps, weighed by how long each takes."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(), console=console)
        self._task = self._progress.add_task("testbed", total=None)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def tick(self) -> None:
        total = sum(self._seconds.values()) or None
        self._progress.update(
            self._task, total=total, completed=self._done(), description=self._line()
        )

    def show(self, line: str) -> None:
        self._progress.console.print(f"testbed: {line}", highlight=False)

    def close(self) -> None:
        self._progress.stop()


def _clock_face(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def for_this_terminal() -> Display:
    """A bar when standard error is a terminal, plain lines otherwise."""
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(sys.stderr)
