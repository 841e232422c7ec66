"""
The scheduler's verbs as a WSGI application of their own, in front of everything else.

Called by: `app.py`. Flask takes a quarter of a millisecond for each request; the scheduler asks two
for every pod, one pod after the other, so what it waits for does without. Rule: a verb is a POST of
at most so many bytes, answered with JSON and status 200; anything else is answered in words.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from extender.metrics import ExtenderMetrics
from kybernate.runtime.logs import get_logger

# 5,000 names are 100 KB; 5,000 whole Nodes (nodeCacheCapable off) are 80 MB and beyond our means.
LARGEST_BODY = 32 << 20

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]
Answer = Callable[[bytes], bytes]


class Verbs:
    """Answers `POST /<verb>` for each of `verbs`; the rest goes to `others`."""

    def __init__(
        self, verbs: Mapping[str, Answer], metrics: ExtenderMetrics, others: Application
    ) -> None:
        self._others = others
        self._verbs = {
            f"/{verb}": (answer, metrics.seconds.labels(verb)) for verb, answer in verbs.items()
        }

    def __call__(self, environ: Environ, start: Any) -> Iterable[bytes]:
        """WSGI."""
        verb = self._verbs.get(environ["PATH_INFO"])
        if verb is None:
            return self._others(environ, start)
        if environ["REQUEST_METHOD"] != "POST":
            return _say(start, "405 Method Not Allowed", "a verb is asked by POST", Allow="POST")
        body = _read(environ)
        if body is None:
            return _say(start, "413 Content Too Large", f"more than {LARGEST_BODY} bytes")
        answer, seconds = verb
        try:
            with seconds.time():
                found = answer(body)
        except Exception:
            get_logger().exception("a request could not be answered", path=environ["PATH_INFO"])
            return _say(start, "500 Internal Server Error", "the extender's log says more")
        return _send(start, "200 OK", found, {"Content-Type": "application/json"})


def _read(environ: Environ) -> bytes | None:
    """The body; None for one that is too large, which is not read to its end."""
    if int(environ.get("CONTENT_LENGTH") or 0) > LARGEST_BODY:  # the server has seen to digits
        return None
    body: bytes = environ["wsgi.input"].read(LARGEST_BODY + 1)
    return body if len(body) <= LARGEST_BODY else None


def _say(start: Any, status: str, text: str, **headers: str) -> list[bytes]:
    plain = {"Content-Type": "text/plain; charset=utf-8", **headers}
    return _send(start, status, f"{text}\n".encode(), plain)


def _send(start: Any, status: str, body: bytes, headers: Mapping[str, str]) -> list[bytes]:
    start(status, [*headers.items(), ("Content-Length", str(len(body)))])
    return [body]
