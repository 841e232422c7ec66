"""
Runs a program in a node: in its namespaces, in its daemons' cgroup, in the caller's folder.

Called by: `testbed.node.realnode`, as a program; `command` gives its arguments.
Rule: a signal to the process group reaches both of us, and the program decides how to end; who
waits for us waits for it. Killed, we take it with us.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.node import cgroups, kernel

_KINDS = ("pid", "net", "uts", "mnt")


def command(first: int, cgroup: str, argv: Sequence[str | Path]) -> list[str]:
    """Arguments that run `argv` in the node whose first process is `first`."""
    python = [sys.executable, "-S", "-m", "testbed.node.enter"]
    return [*python, str(first), cgroup, *map(str, argv)]


def main() -> int:
    """Arguments: the node's first process, its cgroup, the program and its arguments."""
    first, cgroup, *argv = sys.argv[1:]
    cgroups.join(cgroup, cgroups.here())
    folder = Path.cwd()
    opened = [os.open(f"/proc/{first}/ns/{kind}", os.O_RDONLY) for kind in _KINDS]
    for descriptor in opened:
        kernel.setns(descriptor)
        os.close(descriptor)
    os.chdir(folder)
    child = os.fork()
    if child == 0:
        kernel.die_with_parent(signal.SIGKILL)
        os.execvp(argv[0], argv)
    return _wait(child)


def _wait(child: int) -> int:
    """The program's exit code; what a shell says where a signal ended it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
