"""How long an action may take in all, whatever it consists of. Made by `actions`."""

import time


class Limit:
    """Begins to run when it is made."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, more than none. Raises TimeoutError when they are over."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> TimeoutError:
        """What to raise then."""
        return TimeoutError(f"no answer within {self._seconds:g} s")
