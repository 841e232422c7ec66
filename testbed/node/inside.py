"""
The first process of a node: arranges its mounts, then reaps whatever is left to it.

Called by: `testbed.node.keeper`, as a program in new namespaces.
Arguments: the node's work folder, its name, its boot id.
Rule: when it ends, the kernel ends every process of the node and removes its mounts.
"""

import os
import signal
import socket
import sys
from pathlib import Path

from testbed.node import mounts


def main() -> None:
    """Says "ready" on standard output when the mounts are there."""
    work, name, boot_id = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    socket.sethostname(name)
    mounts.establish(Path(work), boot_id)
    print("ready", flush=True)
    sys.stdout.close()
    while True:
        _reap()
        signal.sigwait({signal.SIGCHLD})


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return


if __name__ == "__main__":
    main()
