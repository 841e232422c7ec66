"""
Child processes that are surely stopped: also when the caller is killed with SIGKILL.

Called by: `testbed.controlplane`, `testbed.opa`, and whoever starts a program beside them.
Rule: a process is in the record before it runs its first instruction, so none is ever forgotten:
it waits at a gate (a read from its caller) until the record is written.
Rule: attached groups have a watchdog that ends them with their caller; detached ones go on, and
`record.end_all(folder / RECORD)` ends them.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from testbed import record, watchdog

RECORD = "processes.json"
_GATE = 'read -r go && exec "$@" </dev/null'
_LOOK_EVERY_S = 0.05
_SHOWN_LINES = 20


class ProcessFailed(Exception):
    """A process ended, or was not ready in time; the message ends with its log's last lines."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process of a group: started here, or found in the record of a detached group."""

    recorded: record.Recorded
    process: subprocess.Popen[bytes] | None = None


class Processes:
    """Named processes of one work folder; logs in `log/<name>.log`. A context manager."""

    def __init__(self, folder: Path, *, detached: bool = False) -> None:
        self.folder = folder
        self.detached = detached
        self._lock = threading.RLock()
        (folder / "log").mkdir(parents=True, exist_ok=True)
        self._children = {found.name: Child(found) for found in self._still_running()}
        self._watchdog = None if detached else watchdog.start(folder, folder / RECORD)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        ready: Callable[[], bool] = lambda: True,
        within: float = 30.0,
        env: Mapping[str, str] | None = None,
        afterwards: Sequence[str] = (),
    ) -> None:
        """Start it in the work folder and wait until `ready` says so, at most `within` seconds.

        `afterwards` is run when the group is closed or its caller gone: it ends what this program
        leaves running in sessions of its own when it is killed.
        Raises ProcessFailed, after which it does not run.
        """
        self._launch(name, argv, env, afterwards)
        try:
            self._await(name, ready, within)
        except BaseException:
            self.stop(name)
            raise

    def names(self) -> list[str]:
        """Those started here and not stopped, in the order of their start."""
        return list(self._children)

    def running(self, name: str) -> bool:
        """Whether it was started here and has not ended."""
        child = self._children.get(name)
        return child is not None and record.alive(child.recorded)

    def pid(self, name: str) -> int:
        """Its process number. Raises KeyError when it was not started here."""
        return self._children[name].recorded.pid

    def log(self, name: str) -> Path:
        """Where it writes; restarts append."""
        return self.folder / "log" / f"{name}.log"

    def stop(self, name: str, grace: float = record.GRACE_S) -> None:
        """End it and its process group: SIGTERM, after `grace` seconds SIGKILL. Idempotent."""
        child = self._children.get(name)
        if child is None:
            return
        record.end(child.recorded, grace)
        if child.process:
            child.process.wait()
        with self._lock:
            del self._children[name]
            self._write()

    def stop_all(self) -> None:
        """End all, detached ones too, last started first, and what killed ones have left."""
        for name, child in reversed(list(self._children.items())):
            self.stop(name)
            record.clear_up(child.recorded)

    def kill(self, name: str) -> None:
        """`kill -9` of it alone: its children run on. Raises KeyError when it was not started."""
        os.kill(self.pid(name), signal.SIGKILL)
        child = self._children[name]
        if child.process:
            child.process.wait()

    def close(self) -> None:
        """Attached: stop all, last started first. Detached: let them go on."""
        if self.detached:
            self._let_go()
            return
        self.stop_all()
        if self._watchdog and self._watchdog.stdin:
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None

    def _still_running(self) -> list[record.Recorded]:
        found = [one for one in record.read(self.folder / RECORD) if record.alive(one)]
        if found and not self.detached:
            names = ", ".join(one.name for one in found)
            raise ProcessFailed(f"{self.folder} is in use, {names} still run there")
        return found

    def _launch(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None,
        afterwards: Sequence[str],
    ) -> None:
        if self.running(name):
            raise ProcessFailed(f"{name} runs already")
        self.stop(name)  # one that ended by itself is still to be reaped
        with self._lock, self.log(name).open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, name, *argv],
                cwd=self.folder,
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._children[name] = Child(record.identify(name, process.pid, afterwards), process)
            self._write()
            _open_gate(process)

    def _await(self, name: str, ready: Callable[[], bool], within: float) -> None:
        deadline = time.monotonic() + within
        while not ready():
            if not self.running(name):
                raise ProcessFailed(f"{name} ended before it was ready:\n{self._tail(name)}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{name} not ready in {within:g} s:\n{self._tail(name)}")
            time.sleep(_LOOK_EVERY_S)

    def _tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join(lines[-_SHOWN_LINES:])

    def _write(self) -> None:
        record.write(self.folder / RECORD, [child.recorded for child in self._children.values()])

    def _let_go(self) -> None:
        for child in self._children.values():
            if child.process:
                child.process.returncode = 0  # or subprocess warns that it still runs, as is meant
        self._children.clear()


def _open_gate(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.close()
