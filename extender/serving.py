"""
gunicorn, without its command line: one worker with threads, because the view is one process's.

Called by: `__main__.py`. Rules: the scheduler keeps idle connections for 90 s and does not repeat a
POST on one that we closed, so ours live longer; certificates are taken over while it runs; on
SIGTERM requests are answered to their end.
"""

import ssl
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from extender.process import Process
from extender.settings import Settings
from kybernate.runtime import addresses, logs
from kybernate.runtime.tls import TlsFiles

KEEP_ALIVE_S = 120
_GRACE_S = 10  # an answer takes milliseconds; the pod has 30 s
# Python gives a busy thread 5 ms before another may run: as long as a whole answer may take. With
# watches flowing, a request would wait that long for its turn, several times.
_SWITCH_S = 0.0005


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The server of this process; `run` returns when it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: Process | None = None
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn."""
        host, port = addresses.parse_listen(self._settings.listen)
        options: dict[str, Any] = {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}",
            "workers": 1,
            "threads": self._settings.threads,
            "worker_class": "gthread",
            "keepalive": KEEP_ALIVE_S,
            "graceful_timeout": _GRACE_S,
            "timeout": 60,  # of the worker's heartbeat, not of a request
            "max_requests": 0,
            "control_socket_disable": True,
            "loglevel": "warning",
            "proc_name": "kyb-extender",
            "worker_exit": self._ended,
        }
        for name, value in {**options, **_tls(self._settings)}.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called by gunicorn in the worker: threads must not be started before its fork."""
        sys.setswitchinterval(_SWITCH_S)
        logs.configure("extender", self._settings.log_level)
        self._process = Process(self._settings)
        self._process.start()
        return self._process.flask

    def _ended(self, _server: object, _worker: object) -> None:
        if self._process is not None:
            self._process.stop()


def _tls(settings: Settings) -> dict[str, Any]:
    if settings.tls_dir is None:
        return {}
    files = TlsFiles(settings.tls_dir)
    context = files.server_context(require_client=settings.require_client_certificate)

    def ours(_config: object, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        return context  # it looks for newer files at every handshake

    # The two paths only tell gunicorn to speak TLS.
    return {
        "certfile": str(settings.tls_dir / "tls.crt"),
        "keyfile": str(settings.tls_dir / "tls.key"),
        "ssl_context": ours,
    }
