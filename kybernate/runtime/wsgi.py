"""
gunicorn, without its command line: one worker with threads, TLS that follows its files.

Called by: `__main__` of the extender and the webhook. One worker, because a view is one process's;
more replicas are the Deployment's business. Whatever has threads (watches, the metrics server) is
made after the fork, by `build`. Rules: kube-scheduler and the API server keep idle connections for
90 s and do not repeat a POST on one that we closed, so ours live longer; certificates are taken
over at each handshake; on SIGTERM requests are answered to their end; whoever begins to speak and
stops, in a handshake or in a request, is let go after a while: gunicorn would give him a thread for
ever, and there are few.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from kybernate.runtime import addresses
from kybernate.runtime.staying import StayingWorker
from kybernate.runtime.tls import TlsFiles

KEEP_ALIVE_S = 120
GRACE_S = 10  # for answers under way at a stop; an answer takes milliseconds
_HEARTBEAT_S = 60  # of the worker, not of a request
_SILENCE_S = 10.0  # in the middle of a handshake or a request; between requests KEEP_ALIVE_S counts


@dataclass(frozen=True, slots=True)
class Running:
    """What the worker serves, and how to let go of it."""

    app: Flask
    stop: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where and how. Without `tls`, in plain text."""

    name: str  # of the process, for `ps`
    listen: str
    threads: int
    tls: TlsFiles | None = None
    require_client: bool = False


class WsgiServer(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """`run()` serves until SIGTERM or SIGINT, and raises SystemExit where `build` fails.

    Raises OSError where the TLS folder holds no usable pair, ValueError where `listen` is wrong.
    """

    def __init__(self, serving: Serving, build: Callable[[], Running]) -> None:
        self._options = _options(serving) | {"worker_exit": self._ended}
        self._build = build
        self._running: Running | None = None
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called by gunicorn in the worker: threads must not be started before its fork."""
        self._running = self._build()
        return self._running.app

    def _ended(self, _arbiter: object, _worker: object) -> None:
        if self._running is not None:
            self._running.stop()


def _options(serving: Serving) -> dict[str, Any]:
    host, port = addresses.parse_listen(serving.listen)
    options: dict[str, Any] = {
        "bind": f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}",
        "workers": 1,
        "worker_class": StayingWorker,
        "threads": serving.threads,
        "keepalive": KEEP_ALIVE_S,
        "graceful_timeout": GRACE_S,
        "timeout": _HEARTBEAT_S,
        "max_requests": 0,
        "worker_tmp_dir": "/dev/shm",  # noqa: S108 - the heartbeat must not wait for a disk
        "control_socket_disable": True,
        "loglevel": "warning",
        "proc_name": serving.name,
    }
    return options | (_tls(serving.tls, serving.require_client) if serving.tls else {})


def _tls(files: TlsFiles, require_client: bool) -> dict[str, Any]:
    context = files.server_context(require_client=require_client)

    context.sslsocket_class = _Conversation
    impatient = _Impatient(context)  # it looks for newer files at every handshake

    def ours(_config: object, _default: Callable[[], ssl.SSLContext]) -> "_Impatient":
        return impatient

    # The two paths only tell gunicorn to speak TLS.
    pair = {"certfile": str(files.folder / "tls.crt"), "keyfile": str(files.folder / "tls.key")}
    return pair | {"ssl_context": ours}


class _Conversation(ssl.SSLSocket):
    """gunicorn asks for blocking reads before each request; it gets them with an end."""

    def setblocking(self, flag: bool) -> None:
        self.settimeout(_SILENCE_S if flag else 0.0)


class _Impatient:
    """What gunicorn uses of a context, for handshakes that end."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, raw: socket.socket, **how: Any) -> ssl.SSLSocket:
        raw.settimeout(_SILENCE_S)
        return self._context.wrap_socket(raw, **how)
