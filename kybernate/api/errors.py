"""
What is wrong with an input, as values: all faults at once, each with its path.

Raised by: the codecs of `kybernate/api`, settings, profile files. Caught at the process boundary.
"""

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_SHOWN = 80  # characters of a value that are repeated: enough to find it, too few to flood a log
# Faults that are spelt out. More are somebody's bomb: a pod has room for 20,000 unknown annotations
# and their text would be megabytes, in a log line and in the answer to the API server.
_TOLD = 50
# Hostile JSON may be deep beyond what `repr` survives, or large beyond what it is worth.
_BOUNDED = reprlib.Repr()
_BOUNDED.maxlevel = 8
_BOUNDED.maxdict = _BOUNDED.maxlist = _BOUNDED.maxtuple = _BOUNDED.maxset = _SHOWN
_BOUNDED.maxstring = _BOUNDED.maxlong = _BOUNDED.maxother = 3 * _SHOWN


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that cannot be read: where, what was there, and what is accepted."""

    path: str
    value: object
    expected: str

    def __str__(self) -> str:
        shown = _BOUNDED.repr(self.value)
        if len(shown) > _SHOWN:
            shown = shown[:_SHOWN] + "..."
        return f"{self.path}: {shown} (expected {self.expected})"


class Malformed(Exception):
    """The input cannot be read, and trying again will not help. `faults` is never empty."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(told(self.faults))


def told(faults: Sequence[Fault]) -> str:
    """All of them in one sentence; of very many the first, and how many more there are."""
    more = [f"and {len(faults) - _TOLD} more"] if len(faults) > _TOLD else []
    return "; ".join([*map(str, faults[:_TOLD]), *more])


class Faults:
    """Collects faults while an input is read, and raises them all together at the end."""

    def __init__(self) -> None:
        self._found: list[Fault] = []

    def add(self, path: str, value: object, expected: str) -> None:
        """Remember one."""
        self._found.append(Fault(path, value, expected))

    def extend(self, faults: Iterable[Fault]) -> None:
        """Remember those somebody else found."""
        self._found.extend(faults)

    def read(self, path: str, value: object, parse: Callable[[str], T], default: T) -> T:
        """`parse(value)`; where that raises ValueError, its text is what was expected."""
        if not isinstance(value, str):
            self.add(path, value, "a string")
            return default
        try:
            return parse(value)
        except ValueError as problem:
            self.add(path, value, str(problem))
            return default

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raises Malformed when there is any."""
        if self._found:
            raise Malformed(self._found)
