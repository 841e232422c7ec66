"""
Serves the bundle in force to every OPA: one path, as a WSGI application.

Served by: the controller's HTTPS server (any WSGI server). Rule: an OPA that has the revision gets
a 304, so polling every second costs a few hundred bytes.
"""

from collections.abc import Callable, Iterable
from typing import Any

from controller.publication import Publication
from kybernate.api.opa_config import BUNDLE_PATH

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


def bundle_app(publication: Publication) -> App:
    """The application. 503 while nothing was published: OPA asks again, and keeps what it has."""

    def app(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        status, headers, body = _answer(publication, environ)
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app


def _answer(publication: Publication, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
    bundle = publication.current
    if environ.get("PATH_INFO") != f"/{BUNDLE_PATH}":
        return "404 Not Found", [_PLAIN], b"only the bundle is here\n"
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return "405 Method Not Allowed", [_PLAIN, ("Allow", "GET, HEAD")], b"read only\n"
    if bundle is None:
        return "503 Service Unavailable", [_PLAIN, ("Retry-After", "1")], b"nothing published\n"
    tag = f'"{bundle.revision}"'
    if tag in environ.get("HTTP_IF_NONE_MATCH", ""):
        return "304 Not Modified", [("ETag", tag)], b""
    return "200 OK", [("ETag", tag), ("Content-Type", "application/gzip")], bundle.content


_PLAIN = ("Content-Type", "text/plain; charset=utf-8")
