"""
One container's process: started, held where it must be, found again after we were killed.

Two shells are between us and the command. The *keeper* outlives us and writes, in the end, the
command's exit code to a file. The *starter* writes its process number to another; where the
container is held it blocks opening the exec FIFO for writing, as runc's does, and writes its byte
when somebody reads; then it becomes the command by exec, so the process number is the command's.

Called by: `podlife`. Rule: the files of a container's folder are the truth; every file is complete
or absent.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.record import Recorded, alive, identify

_KEEPER = r"""
trap : TERM INT HUP
cat /proc/$$/stat >.keeper && mv .keeper keeper
"$@" &
pid=$!
while :; do wait $pid; code=$?; kill -0 $pid 2>/dev/null || break; done
echo $code >.exit && mv .exit exit
"""
# It tells its own number: the keeper could tell it sooner, but until the fork has become a program
# of its own it has the keeper's traps, and a signal sent to it would be lost.
# A reader that closes before our byte is written must not kill us: SIGPIPE is ignored meanwhile.
_STARTER = r"""
echo $$ >.pid && mv .pid pid
[ -z "$1" ] || { trap '' PIPE; echo 0 2>/dev/null >"$1"; trap - PIPE; }
shift
[ -z "$0" ] || cd -- "$0" || exit
exec "$@"
"""
_FIFO = "exec.fifo"
_START_S = 10.0  # what takes longer is broken
_LOOK_S = 0.002
KILLED = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start."""

    command: Sequence[str]
    environment: Mapping[str, str]
    working_dir: str
    held: bool
    log: Path  # appended to


class StartFailed(Exception):
    """The process could not be started."""


class Container:
    """A started container, in its own folder."""

    def __init__(self, folder: Path) -> None:
        """One whose keeper has begun. Raises StartFailed when it got no further."""
        self.folder = folder
        self._keeper = _read_keeper(folder)
        self.pid = _await_pid(folder, self._keeper)
        self.started_at = (folder / "pid").stat().st_mtime  # seconds since the epoch

    @classmethod
    def start(cls, folder: Path, launch: Launch) -> "Container":
        """Start it; returns when the process exists. Raises StartFailed.

        What an earlier try left in the folder without a keeper never ran.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fifo = str(folder / _FIFO) if launch.held else ""
        if fifo:
            os.mkfifo(fifo)
        starter = ["/bin/sh", "-c", _STARTER, launch.working_dir, fifo]
        if launch.working_dir and not Path(launch.working_dir).is_dir():
            raise StartFailed(f"no directory {launch.working_dir!r}")
        with launch.log.open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, "keeper", *starter, *launch.command],
                env=dict(launch.environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Whenever it ends, the kernel wants its end to be taken note of.
        threading.Thread(target=process.wait, name="reaper", daemon=True).start()
        _await_file(folder / "keeper", lambda: process.returncode is None)
        return cls(folder)

    @classmethod
    def find(cls, folder: Path) -> "Container | None":
        """The container started in this folder, running or ended; None where none was."""
        return cls(folder) if (folder / "keeper").exists() else None

    @property
    def fifo(self) -> Path:
        """Where a held one waits."""
        return self.folder / _FIFO

    def exit_code(self) -> int | None:
        """How it ended (128 + n after signal n); None while it runs."""
        code = self._read_exit()
        if code is None and not alive(self._keeper):
            code = self._read_exit()  # it may have ended between the two looks
            return KILLED if code is None else code
        return code

    def terminate(self) -> None:
        """Ask it to end. One that is parked stands still: it goes on, to hear it."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it; held or stopped ones too."""
        self._signal(signal.SIGKILL)

    def end(self) -> int:
        """Kill it and everything of it; its exit code."""
        self.kill()
        deadline = time.monotonic() + _START_S
        while (code := self.exit_code()) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        self.sweep()
        return KILLED if code is None else code

    def sweep(self) -> None:
        """End what an ended one left running in its process group, and remove its FIFO."""
        if self._group_is_ours():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._keeper.pid, signal.SIGKILL)
        self.fifo.unlink(missing_ok=True)

    def _group_is_ours(self) -> bool:
        """Not so when the keeper's number was given to somebody else since."""
        try:
            return identify(self._keeper.name, self._keeper.pid) == self._keeper
        except ProcessLookupError:
            return True

    def _signal(self, number: signal.Signals) -> None:
        if self.exit_code() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _read_exit(self) -> int | None:
        with suppress(FileNotFoundError, ValueError):
            return int((self.folder / "exit").read_text())
        return None


def _read_keeper(folder: Path) -> Recorded:
    """From its own line of /proc: its number is field 1, its start field 22, after the name."""
    text = (folder / "keeper").read_text()
    number, _, rest = text.partition(" ")
    return Recorded(folder.name, int(number), int(rest.rpartition(")")[2].split()[19]))


def _await_pid(folder: Path, keeper: Recorded) -> int:
    _await_file(folder / "pid", lambda: alive(keeper))
    return int((folder / "pid").read_text())


def _await_file(path: Path, coming: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_S
    while not path.exists():
        if time.monotonic() > deadline or (not coming() and not path.exists()):
            raise StartFailed("the process did not start")
        time.sleep(_LOOK_S)
