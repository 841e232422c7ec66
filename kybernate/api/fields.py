"""
Reading fields of objects from the API server, with the path of whatever is wrong.

Called by: the codecs of the custom resources. The API server has checked them against their schema
already; these checks are for dumps, golden files and a schema that is newer than we are.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from kybernate.api import timestamps
from kybernate.api.errors import Faults

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")

MISSING: Any = object()


class Reader:
    """One object at one path. Faults are collected in `faults`, shared with the readers below."""

    def __init__(self, value: Any, path: str, faults: Faults) -> None:
        self.path = path  # "" at the top
        self.faults = faults
        self.value: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        if not isinstance(value, Mapping):
            faults.add(path, value, "an object")

    def text(self, name: str, default: str = MISSING) -> str:
        """A string; null counts as absent where there is a default."""
        if default is not MISSING and self.value.get(name) is None:
            return default
        return self._typed(name, str, "a string", default, "")

    def integer(self, name: str, default: int = MISSING) -> int:
        """A whole number, not negative."""
        found = self._typed(name, int, "a whole number", default, 0)
        if found < 0:
            self.faults.add(self._at(name), found, "a number that is not negative")
        return found

    def signed(self, name: str, default: int = MISSING) -> int:
        """A whole number."""
        return self._typed(name, int, "a whole number", default, 0)

    def seconds(self, name: str, default: float = MISSING) -> float:
        """A number of seconds, not negative; whole or not."""
        found = self.value.get(name, default)
        if isinstance(found, int | float) and not isinstance(found, bool) and found >= 0:
            return float(found)
        shown = None if found is MISSING else found
        self.faults.add(self._at(name), shown, "a number of seconds, not negative")
        return 0.0

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        return self._typed(name, bool, "true or false", default, False)

    def one_of(self, name: str, kind: type[E], default: E | None = None) -> E:
        """A value of an enumeration."""
        given = self.value.get(name, default)
        try:
            return kind(given)
        except ValueError:
            accepted = "one of " + ", ".join(kind)
            self.faults.add(self._at(name), given, accepted)
            return next(iter(kind))

    def time(self, name: str) -> float:
        """Seconds since the epoch; 0 where absent."""
        given = self.value.get(name)
        if given is None:
            return 0.0
        return self.faults.read(self._at(name), given, timestamps.parse_rfc3339, 0.0)

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """A string that `parse` reads; its ValueError says what was expected."""
        return self.faults.read(self._at(name), self.value.get(name), parse, default)

    def below(self, name: str) -> "Reader":
        """The object of this name; an absent one is empty."""
        found = self.value.get(name)
        return Reader({} if found is None else found, self._at(name), self.faults)

    def each(self, name: str) -> list["Reader"]:
        """The objects of a list."""
        return [
            Reader(value, f"{self._at(name)}[{index}]", self.faults)
            for index, value in enumerate(self.sequence(name))
        ]

    def sequence(self, name: str) -> Sequence[Any]:
        """A list; an absent one is empty."""
        found = self.value.get(name)
        if found is None or isinstance(found, list | tuple):
            return found or ()
        self.faults.add(self._at(name), found, "a list")
        return ()

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _typed(self, name: str, kind: type[T], what: str, default: T, fallback: T) -> T:
        found = self.value.get(name, default)
        # bool is an int to Python, never to Kubernetes
        if isinstance(found, kind) and (kind is bool or not isinstance(found, bool)):
            return found
        shown = None if found is MISSING else found
        self.faults.add(self._at(name), shown, what)
        return fallback


def read(value: Any, path: str, build: Callable[[Reader], T]) -> T:
    """`build(reader)`, then raises Malformed with every fault it met."""
    faults = Faults()
    built = build(Reader(value, path, faults))
    faults.check()
    return built


def condition(obj: Mapping[str, Any], kind: str) -> str:
    """The status of a condition: "True", "False" or "Unknown"; "Unknown" where it is absent."""
    for found in (obj.get("status") or {}).get("conditions") or ():
        if found.get("type") == kind:
            return str(found.get("status", "Unknown"))
    return "Unknown"
