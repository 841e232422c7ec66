"""
Time that never jumps, in the wall clock's terms: what turns, minimum runtimes and waiting count in.

Called by `process`, who gives it to whoever counts; what is written to the API server is wall time
(`to_wall`). Rule: it goes on over restarts of the agent, as the machine's own monotonic clock does;
at a reboot it begins anew with the wall clock, as everything that was counted does.
"""

import threading
from dataclasses import replace
from pathlib import Path

import orjson

from kybernate.clients.clock import Clock
from kybernate.decisions import questions
from kybernate.decisions.questions import Asks
from kybernate.model.policy import (
    Calendar,
    PreemptionQuestion,
    PreemptionVerdict,
    TieringQuestion,
    TieringVerdict,
    TimesliceQuestion,
    TimesliceVerdict,
)
from kybernate.model.verdict import Refusal
from kybernate.runtime.logs import get_logger
from nodeagent.disk.durable import seal

FILE = "steady.json"


class SteadyClock:
    """A `Clock`. `now` is seconds since the epoch as the wall clock had it at the first look."""

    def __init__(self, wall: Clock, folder: Path, boot: str) -> None:
        """`folder` outlives the agent."""
        self._wall = wall
        self._began = _read(folder / FILE, boot)
        if self._began is None:
            self._began = wall.now() - wall.monotonic()
            _write(folder / FILE, boot, self._began)

    def now(self) -> float:
        """Seconds since the epoch, give or take what the wall clock was changed by since."""
        assert self._began is not None
        return self._began + self._wall.monotonic()

    def monotonic(self) -> float:
        """As the machine has it."""
        return self._wall.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Until the event is set (True) or the seconds are over (False)."""
        return self._wall.wait(event, seconds)

    def to_wall(self, moment: float) -> float:
        """What the wall clock, as it is now, has for a moment of ours."""
        return moment + self._wall.now() - self.now()


def _read(file: Path, boot: str) -> float | None:
    """When it began; None when that was before a reboot, or cannot be read."""
    try:
        kept = orjson.loads(file.read_bytes())
        return float(kept["began"]) if kept["boot"] == boot else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        get_logger(path=str(file)).warning("the steady clock begins anew", why=str(error))
        return None


def _write(file: Path, boot: str, began: float) -> None:
    """A disk that is full costs only that it begins anew with the next agent."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        seal(file, orjson.dumps({"boot": boot, "began": began}))
    except OSError as error:
        get_logger(path=str(file)).warning("the steady clock is not kept", why=str(error))


class ByTheWall:
    """`Asks` whose questions have the wall clock's calendar: windows are people's hours."""

    def __init__(self, asks: Asks, wall: Clock) -> None:
        self._asks, self._wall = asks, wall

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        """As the port says."""
        return self._asks.timeslice(replace(question, calendar=self._calendar()))

    def preemption(self, question: PreemptionQuestion) -> PreemptionVerdict | Refusal:
        """As the port says."""
        return self._asks.preemption(replace(question, calendar=self._calendar()))

    def tiering(self, question: TieringQuestion) -> TieringVerdict | Refusal:
        """As the port says."""
        return self._asks.tiering(replace(question, calendar=self._calendar()))

    def _calendar(self) -> Calendar:
        return questions.calendar(self._wall.now())
