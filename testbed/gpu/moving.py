"""
A copy under way: who waits for it, how far it is, and what may end it early.

Called by: `device`, for both directions.
"""

from typing import Protocol

from testbed.gpu.bus import Lane, Transfer
from testbed.gpu.context import Context, Segment
from testbed.gpu.errors import Absent, GaveUp, Sick


class Caller(Protocol):
    """Who asks. Its going away must be followed by `Device.nudge`."""

    def alive(self) -> bool:
        """Whether anybody still waits for the answer."""

    def wait(self, seconds: float) -> bool:
        """Pause; True at once when the caller went away."""


class Moving:
    """One copy's progress on its lane."""

    def __init__(
        self, context: Context, segment: Segment, lane: Lane, caller: Caller, fail_after: int | None
    ) -> None:
        self._context = context
        self._segment = segment
        self._transfer = Transfer(lane, caller.wait)
        self._fail_after = fail_after
        self._at = 0

    def moved(self, length: int) -> None:
        """Wait until `length` more bytes of content are over. Raises when that cannot be."""
        start, self._at = self._at, self._at + length
        if not self._transfer.move(self._segment.pretended(start, self._at)):
            raise GaveUp("the caller went away")
        if self._context.gone:
            raise Absent(f"context {self._context.name} ended")
        self._segment.card.must_be_well()
        if (
            self._fail_after is not None
            and self._segment.pretended(0, self._at) >= self._fail_after
        ):
            raise Sick("the copy fails, as was asked for")
