"""
Ends a work folder's processes when the one who started them is gone, however it went.

Called by: `testbed.processes`, as a program of its own session, one per attached group.
Rule: two signs of death, either is enough: the pipe on standard input closes, or the caller's
process ends (a caller that forked leaves copies of the pipe open). Not PR_SET_PDEATHSIG: that
fires when the *thread* that started the child ends.
Rule: standard library only, so that it starts in milliseconds and holds little memory.
"""

import os
import select
import subprocess
import sys
from pathlib import Path

from testbed import record


def start(folder: Path, file: Path) -> subprocess.Popen[bytes]:
    """Watch over the caller; close its standard input and wait for it to let it go.

    What it has to say, if anything, is in `log/watchdog.log` of the folder.
    """
    module = ["-S", "-m", "testbed.watchdog"]
    with (folder / "log" / "watchdog.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *module, str(os.getpid()), str(file)],
            env={"PYTHONPATH": str(Path(__file__).parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )


def main() -> None:
    """Arguments: the caller's process number, the file with the record."""
    caller, file = int(sys.argv[1]), Path(sys.argv[2])
    _wait_for_the_end_of(caller)
    record.end_all(file)


def _wait_for_the_end_of(caller: int) -> None:
    signs = select.poll()
    signs.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    process = _watched(caller)
    if process is not None:
        signs.register(process, select.POLLIN)
    if os.getppid() == caller:
        signs.poll()


def _watched(caller: int) -> int | None:
    """A descriptor that becomes readable when the caller ends; None where kernels lack them."""
    try:
        return os.pidfd_open(caller)
    except OSError:
        return None


if __name__ == "__main__":
    main()
