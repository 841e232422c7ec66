"""
The standard library's HTTP server as we use it: a thread for each connection, TLS, a deadline.

Called by: `serving`, and the controller for its bundles. Rule: whoever connects and says nothing,
in the middle of a handshake too, holds nobody else up and is let go after the deadline.
"""

import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from typing import Any

from kybernate.runtime.logs import get_logger


class ThreadedServer(ThreadingHTTPServer):
    """`context` may be set, and replaced, while it serves: it counts for the next connection."""

    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext | None = None  # plain text without one

    def __init__(
        self, host: str, port: int, conversation: type[BaseHTTPRequestHandler], *, deadline: float
    ) -> None:
        """`deadline` in seconds, for each read. Binds at once. Raises OSError."""
        self.address_family = AF_INET6 if ":" in host else AF_INET
        self._deadline = deadline
        super().__init__((host, port), conversation)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: a slow handshake holds nobody else up."""
        request.settimeout(self._deadline)
        if self.context is None:
            super().finish_request(request, client_address)
            return
        with self.context.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Of one connection: clients come and go as they like."""
        get_logger().debug("connection failed", client=str(client_address), exc_info=True)
