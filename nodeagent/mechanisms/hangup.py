"""
Waiting until a workload has closed its connections to a server that told it to.

Called by: mechanisms that let go of a workload before an image is made of it. A process that is
told has to be given its turn before it can close anything; an image that is made before that wakes
with a connection that leads nowhere.
"""

import socket
import threading
import time
from pathlib import Path

from nodeagent.images import descriptors
from nodeagent.linux import processes
from nodeagent.mechanisms import NotYet

_LOOK_S = 0.02
_CREDENTIALS = 12  # bytes of a struct ucred, the process first


def await_closed(first: int, address: str | Path, limit: float) -> None:
    """Until no process of this one's tree is connected there. Raises NotYet after `limit` s."""
    server = _server(address)
    until = time.monotonic() + limit
    while server and _is_connected(first, server):
        if time.monotonic() >= until:
            raise NotYet(f"it did not close its connection to {address} within {limit:g} s")
        threading.Event().wait(_LOOK_S)


def _is_connected(first: int, server: int) -> bool:
    return any(peer == server for _, peer in descriptors.outside(processes.tree(first)))


def _server(address: str | Path) -> int:
    """Its process; 0 where nobody listens any more, and then nobody is connected."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(address).removeprefix("unix://"))
            raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS)
    except OSError:
        return 0
    return int.from_bytes(raw[:4], "little", signed=True)
