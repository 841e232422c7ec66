"""
An extender with a stopwatch around it: the shipped one, or one that does nothing.

Started by `benchmarks/extender.py` as a program: `python -m benchmarks.harness.timed ours|idle`,
with the extender's own flags. The idle one is served the same way and answers without looking: the
first 32 nodes, all of equal score. Both tell at `GET /timings` how long each answer took and how
much processor time the process has used.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from flask import Flask

from extender.metrics import ExtenderMetrics
from extender.serving import build, serving
from extender.settings import Settings
from extender.verbs import Verbs
from kybernate.runtime import settings
from kybernate.runtime.wsgi import Running, WsgiServer

CANDIDATES = 32  # as many as ours by default
_TICKS = os.sysconf("SC_CLK_TCK")
_TIMED = ("/filter", "/prioritize")


class Stopwatch:
    """WSGI middleware. One scheduler asks one thing at a time, so calls stand in order."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self._inner = inner
        self._timings: list[tuple[str, float, float]] = []  # verb, elapsed, on a processor

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/timings":
            return self._tell(start)
        began, used = time.perf_counter(), time.thread_time()
        answer = self._inner(environ, start)
        if path in _TIMED:
            timing = path[1:], time.perf_counter() - began, time.thread_time() - used
            self._timings.append(timing)
        return answer

    def _tell(self, start: Any) -> Iterable[bytes]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        told = {
            "pid": os.getpid(),
            "processor": used.ru_utime + used.ru_stime,
            "timings": self._timings,
            "threads": _threads(),
        }
        body = orjson.dumps(told)
        self._timings = []
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def _threads() -> dict[str, float]:
    """Processor seconds by thread; those that answer are one."""
    found: dict[str, float] = {}
    for thread in threading.enumerate():
        try:
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        except OSError:  # it has just ended
            continue
        user, system = stat.rpartition(")")[2].split()[11:13]
        name = "answers" if "ThreadPool" in thread.name else thread.name
        found[name] = found.get(name, 0.0) + (int(user) + int(system)) / _TICKS
    return found


def ours(settings: Settings) -> Running:
    """The shipped extender."""
    running = build(settings)
    return replace(running, app=_timed(running.app))


def idle(_settings: Settings) -> Running:
    """Served alike, and does nothing."""
    return Running(_timed(_idle()), lambda: None)


def _timed(app: Flask) -> Flask:
    app.wsgi_app = Stopwatch(app.wsgi_app)  # type: ignore[method-assign, assignment]  # Flask's way
    return app


def _idle() -> Flask:
    app = Flask("idle", static_folder=None)
    verbs = {"filter": _first_candidates, "prioritize": _no_preference}
    served = Verbs(verbs, ExtenderMetrics(), app.wsgi_app)  # as ours are
    app.wsgi_app = served  # type: ignore[method-assign, assignment]  # Flask's way

    @app.get("/readyz")
    def _readyz() -> str:
        return "ok"

    return app


def _first_candidates(body: bytes) -> bytes:
    names = orjson.loads(body)["NodeNames"][:CANDIDATES]
    empty: dict[str, str] = {}
    answer = {"NodeNames": names, "FailedNodes": empty, "FailedAndUnresolvableNodes": empty}
    return orjson.dumps({**answer, "Error": ""})


def _no_preference(body: bytes) -> bytes:
    names = orjson.loads(body)["NodeNames"]
    return orjson.dumps([{"Host": name, "Score": 0} for name in names])


if __name__ == "__main__":
    which = {"ours": ours, "idle": idle}[sys.argv.pop(1)]
    told = settings.from_process(Settings)
    WsgiServer(serving(told), partial(which, told)).run()
