"""
An HTTP probe as the kubelet makes it: one GET, any answer from 200 to 399 is good.

Called by: `actions`; `text` by whoever reads a pod's page. Redirects are followed on the same host,
at most ten; one that leads elsewhere is good as it stands. Certificates are not checked. The answer
to a probe goes to nobody: whoever may read a pod's events may not read its pages.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from kybernate.model.probing import HttpGet, Outcome
from nodeagent.probing.limit import Limit

Connect = Callable[[str, int], socket.socket]
"""A connection to host (empty: the pod's own address) and port; raises OSError, within its time."""

_REDIRECTS = 10
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_GOOD = range(200, 400)
_SAFE = "/?&=%:@!$'()*+,;~[]-._"
_USUAL = (("User-Agent", "kube-probe/kybernate"), ("Accept", "*/*"))
_Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Place:
    tls: bool
    host: str  # empty: the pod's own address
    port: int
    path: str


def get(action: HttpGet, connect: Connect, own: str, limit: Limit) -> Outcome:
    """What came of it. `own` is the pod's own address."""
    place = _Place(action.tls, action.host, action.port, _path(action.path))
    for _ in range(_REDIRECTS + 1):
        try:
            status, where = _asked(place, action.headers, connect, own, limit)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Outcome(passed=False, say=f"HTTP probe failed: {error or type(error).__name__}")
        following = _redirected(place, own, where) if status in _REDIRECTING else None
        if following is None:
            return _judged(status)
        place = following
    return Outcome(passed=False, say=f"HTTP probe failed: stopped after {_REDIRECTS} redirects")


def text(line: socket.socket, port: int, path: str, limit: Limit, most: int) -> str:
    """What a pod's own program answers on this connection, which is closed then. Raises OSError
    where it does not, or not in time, or with more than `most` bytes, or with anything but 200."""
    spoken = http.client.HTTPConnection("localhost", port)
    try:
        with _limited(line, limit):
            spoken.sock = line
            _send(spoken, _Place(False, "localhost", port, _path(path)), (), "localhost")
            answer = spoken.getresponse()
            body = answer.read(most + 1)
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {error!r}") from error
    if answer.status != 200 or len(body) > most:
        said = f"status {answer.status}" if answer.status != 200 else f"more than {most} bytes"
        raise OSError(f"port {port}{path} answered with {said}")
    return body.decode(errors="replace")


def _judged(status: int) -> Outcome:
    if status in _GOOD:
        return Outcome(passed=True)
    return Outcome(passed=False, say=f"HTTP probe failed with statuscode: {status}")


def _asked(
    place: _Place, headers: _Headers, connect: Connect, own: str, limit: Limit
) -> tuple[int, str]:
    """The answer's status, and where it sends us."""
    line = connect(place.host, place.port)
    with _limited(line, limit):
        line = _unchecked().wrap_socket(line, server_hostname=_name(place)) if place.tls else line
        spoken = http.client.HTTPConnection(place.host or own, place.port)
        spoken.sock = line
        try:
            _send(spoken, place, headers, own)
            answer = spoken.getresponse()
            return answer.status, answer.getheader("Location") or ""
        finally:
            spoken.close()


def _send(spoken: http.client.HTTPConnection, place: _Place, headers: _Headers, own: str) -> None:
    given = {name.lower() for name, _ in headers}
    own_host = ("Host", _authority(place.host or own, place.port))
    usual = [one for one in (own_host, *_USUAL) if one[0].lower() not in given]
    spoken.putrequest("GET", place.path, skip_host=True, skip_accept_encoding=True)
    for name, value in (*usual, *headers):
        if value:  # an empty one is how a usual one is left out
            spoken.putheader(name, value.encode())
    spoken.putheader("Connection", "close")
    spoken.endheaders()


@contextmanager
def _limited(line: socket.socket, limit: Limit) -> Iterator[None]:
    """Ends whatever is read or written when it is over, also what comes drop by drop."""
    late = threading.Event()
    mine = line.dup()  # TLS takes the other one over

    def end() -> None:
        late.set()
        try:
            mine.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself

    timer = threading.Timer(limit.left(), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set():
            raise limit.over() from error
        raise
    finally:
        timer.cancel()
        mine.close()
        line.close()


def _redirected(place: _Place, own: str, where: str) -> _Place | None:
    """The place that follows on the same host; None where there is none."""
    if not where:
        return None
    host = place.host or own
    scheme = "https" if place.tls else "http"
    target = urlsplit(urljoin(f"{scheme}://{_authority(host, place.port)}{place.path}", where))
    if target.hostname != host.lower() or target.scheme not in ("http", "https"):
        return None
    tls = target.scheme == "https"
    path = _path(target.path + (f"?{target.query}" if target.query else ""))
    return _Place(tls, place.host, target.port or (443 if tls else 80), path)


def _path(path: str) -> str:
    path = path.partition("#")[0]
    return quote(path if path.startswith("/") else "/" + path, safe=_SAFE)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name(place: _Place) -> str | None:
    return place.host or None


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # as the kubelet: the pod's own address has no certificate
    return context
