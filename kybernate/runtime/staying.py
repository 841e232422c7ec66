"""
gunicorn's thread worker, whose threads stay with a connection that is busy.

Called by: `wsgi.py`. gunicorn gives a connection back to its main thread after every request, and
a thread that is woken for the next one costs as much as the request itself: kube-scheduler asks
over one connection, its next question about a millisecond after the last answer. Rules: a thread
stays for a moment only, and only while another one is free, so that nobody waits for it; everything
else is gunicorn's.
"""

import select
import threading
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

STAY_MS = 50  # longer than the pause between two questions of a busy scheduler


class StayingWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker of one process with threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._given = 0  # connections that threads have or wait for

    def enqueue_req(self, conn: Any) -> None:
        """Called by gunicorn, in its main thread: the connection has something to read."""
        with self._lock:
            self._given += 1
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Called by gunicorn, in a thread: answer, and what follows soon too."""
        try:
            kept = super().handle(conn)
            while kept is True and self._more(conn):
                kept = super().handle(conn)
            return kept
        finally:
            with self._lock:
                self._given -= 1

    def _more(self, conn: Any) -> bool:
        """Whether something to read comes while this thread may stay."""
        if not self.alive or self._given >= self.cfg.threads:
            return False
        if conn.parser.unreader.buf.getvalue() or _decrypted(conn.sock):
            return True
        poll = select.poll()
        poll.register(conn.sock, select.POLLIN)
        return bool(poll.poll(STAY_MS))


def _decrypted(sock: Any) -> int:
    """Bytes that TLS has read already and `poll` does not see."""
    pending = getattr(sock, "pending", None)
    return pending() if pending else 0
