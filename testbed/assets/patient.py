"""
A child process that takes minutes: its output goes to a file, and somebody is told that it runs.

Called by: `testbed.assets.compiler` and `.toolchain`.
Rule: ends with its caller's interruption: Ctrl-C stops the child's whole process group.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TICK_S = 0.5


def run(
    argv: Sequence[str],
    output: Path,
    tick: Callable[[], None],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
) -> int:
    """The exit code. Calls `tick` twice a second; the child inherits the descriptors in `keep`."""
    with (
        output.open("wb") as log,
        subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=keep,
        ) as process,
    ):
        try:
            return _wait(process, tick)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None]) -> int:
    while True:
        try:
            return process.wait(timeout=_TICK_S)
        except subprocess.TimeoutExpired:
            tick()


def tail(output: Path, lines: int = 20) -> str:
    """The end of a log, for an error message."""
    return "\n".join(output.read_text(errors="replace").splitlines()[-lines:])
