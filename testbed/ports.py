"""
Free TCP ports on loopback.

Called by: `testbed.controlplane` and `testbed.opa`.
Rule: a server that can share a port (SO_REUSEPORT) gets one that is held for it all the time, so
nobody takes it before it starts nor while it restarts. For others the port is only a good guess:
they try again with another one.
"""

import socket
from types import TracebackType

LOOPBACK = "127.0.0.1"


class Held:
    """A port bound but never listened on: connections go to the server that shares it."""

    def __init__(self, number: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._socket.bind((LOOPBACK, number))
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    def __enter__(self) -> "Held":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give it back."""
        self._socket.close()


def guess() -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        number: int = probe.getsockname()[1]
        return number
