"""
Health: named checks behind /healthz (restart me when it fails) and /readyz (send me no work).

Called by: every process; served by `serving.py` or its own Flask application.
Rule: a dependency that is away makes a process unready, never unhealthy: a restart would not help.
"""

from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[], str | None]
"""None when fine, else a sentence that says what is not."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of all checks."""

    ok: bool
    text: str

    @property
    def status(self) -> int:
        """HTTP's."""
        return 200 if self.ok else 503


class Health:
    """The checks of one process. To be filled before it is served."""

    def __init__(self) -> None:
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def live(self, name: str, check: Check) -> None:
        """Fails when only a restart helps. It counts for readiness too."""
        self._live[name] = check

    def ready(self, name: str, check: Check) -> None:
        """Fails while work would fail."""
        self._ready[name] = check

    def healthz(self) -> Report:
        """The live checks."""
        return _report(self._live)

    def readyz(self) -> Report:
        """All checks."""
        return _report(self._live | self._ready)


def _report(checks: dict[str, Check]) -> Report:
    faults = {name: _run(check) for name, check in checks.items()}
    lines = [f"[-] {name}: {fault}" if fault else f"[+] {name}" for name, fault in faults.items()]
    ok = not any(faults.values())
    return Report(ok, "\n".join([*lines, "ok" if ok else "not ok", ""]))


def _run(check: Check) -> str | None:
    try:
        return check()
    except Exception as problem:  # a check that cannot answer is an answer
        return f"{type(problem).__name__}: {problem}"
