"""
`python -m nodeagent.gpuworker FD SECONDS`: started by an agent, with the socket that agents connect
to, and how long to wait for one.

The card is the one that CUDA_VISIBLE_DEVICES names. One agent at a time is served; the next one is
let in once all that the last one had begun is ended. When its socket goes nobody can find it: it
ends.
"""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from kybernate.clients.errors import Refused
from nodeagent.gpuworker import wire
from nodeagent.gpuworker.driver import Driver
from nodeagent.gpuworker.serving import Serving

_LOOK_S = 2.0  # at the socket's file, while alone


def main(arguments: list[str]) -> int:
    """Serve agents until none comes for the time given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; agents end us by asking
    listener = socket.socket(fileno=int(arguments[0]))
    listener.listen(4)  # from now on who connects sees our process number, not our starter's
    listener.settimeout(_LOOK_S)
    try:
        driver = Driver()
        serving = Serving(driver)
    except Refused as error:
        with listener.accept()[0] as starter:
            wire.send(starter, {"ok": False, "why": str(error), "code": 0})
        return 1
    hello = {"ok": True, "build": wire.build(), "pid": os.getpid(), "node": driver.numa_node()}
    while (agent := _next(listener, float(arguments[1]))) is not None:
        with agent, suppress(BrokenPipeError):  # it was gone before we greeted it
            agent.setblocking(True)
            wire.send(agent, hello)
            if not serving.serve(agent):
                break
    return 0


def _next(listener: socket.socket, limit: float) -> socket.socket | None:
    """The next agent; none where none came, or can come."""
    until, path = time.monotonic() + limit, Path(listener.getsockname())
    while time.monotonic() < until and path.exists():
        try:
            return listener.accept()[0]
        except TimeoutError:
            continue
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
