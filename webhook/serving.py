"""gunicorn around the routes: one worker, threads, TLS that follows its files.

Called by `__main__`. One worker, because the view is in memory; more replicas are the Deployment's
business. Whatever has threads (watches, the metrics server) is made after the fork, by `build`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from kybernate.runtime import addresses
from kybernate.runtime.tls import TlsFiles

THREADS = 16  # an answer waits for OPA about a millisecond, at most its half second of patience
KEEP_ALIVE_S = 120  # longer than the API server keeps an idle connection: it is never closed on it
GRACE_S = 10  # for answers under way at a stop; the API server waits less


@dataclass(frozen=True, slots=True)
class Running:
    """What a worker serves, and how to let go of it."""

    app: Flask
    stop: Callable[[], None]


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`run()` serves until SIGTERM or SIGINT, and raises SystemExit where `build` fails.

    Raises OSError where the TLS folder holds no usable pair.
    """

    def __init__(self, listen: str, folder: Path, build: Callable[[], Running]) -> None:
        self._options = _options(listen, folder) | {"worker_exit": self._end}
        self._build = build
        self._running: Running | None = None
        super().__init__()

    def load_config(self) -> None:
        """As gunicorn asks for it."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """In the worker, after the fork."""
        self._running = self._build()
        return self._running.app

    def _end(self, _arbiter: object, _worker: object) -> None:
        if self._running is not None:
            self._running.stop()


def _options(listen: str, folder: Path) -> dict[str, Any]:
    # Each handshake takes the newest files: no restart, no HUP.
    context = TlsFiles(folder).server_context()
    host, port = addresses.parse_listen(listen)
    return {
        "bind": f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}",
        "workers": 1,
        "worker_class": "gthread",
        "threads": THREADS,
        "keepalive": KEEP_ALIVE_S,
        "graceful_timeout": GRACE_S,
        "preload_app": False,
        "max_requests": 0,
        "certfile": str(folder / "tls.crt"),  # only says that there is TLS
        "ssl_context": lambda _config, _default: context,
        "worker_tmp_dir": "/dev/shm",  # noqa: S108 - the heartbeat must not wait for a disk
        "control_socket_disable": True,
        "loglevel": "warning",
    }
