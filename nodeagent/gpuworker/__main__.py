"""
`python -m nodeagent.gpuworker FD`: started by the agent, with the socket it is asked over.

The card is the one that CUDA_VISIBLE_DEVICES names.
"""

import signal
import socket
import sys

from kybernate.clients.errors import Refused
from nodeagent.gpuworker import wire
from nodeagent.gpuworker.driver import Driver
from nodeagent.gpuworker.serving import Serving


def main(arguments: list[str]) -> int:
    """Serve until the agent's end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; the agent ends us by its socket
    agent = socket.socket(fileno=int(arguments[0]))
    try:
        serving = Serving(Driver())
    except Refused as error:
        wire.send(agent, {"ok": False, "why": str(error), "code": 0})
        return 1
    wire.send(agent, {"ok": True})
    serving.serve(agent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
