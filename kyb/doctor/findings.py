"""
What a check says: found, wanted, and how to mend it.

Rule: a fault makes the exit status 1, and so does what could not be seen: nobody knows it is well.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from kyb.doctor.supported import Supported, at_least


class Grade(StrEnum):
    """How it stands."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row. `mend` is empty where there is nothing to do."""

    check: str
    grade: Grade
    found: str
    wanted: str
    mend: str = ""

    def json(self) -> dict[str, str]:
        """As `--json` prints it."""
        return {name: str(value) for name, value in asdict(self).items()}


def fit(findings: Iterable[Finding]) -> bool:
    """Whether the node will do: no fault, and nothing that could not be seen."""
    return not any(one.grade in (Grade.FAULT, Grade.UNKNOWN) for one in findings)


def versioned(check: str, found: str, one: Supported, mend: str) -> Finding:
    """A version against the oldest that will do."""
    good = at_least(found, one.oldest)
    return Finding(
        check=check,
        grade=Grade.OK if good else Grade.FAULT,
        found=found,
        wanted=f"{one.oldest} or newer (tried: {one.tried})",
        mend="" if good else f"{mend}: {one.why}",
    )
