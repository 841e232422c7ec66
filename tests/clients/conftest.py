"""
Clients against three servers that must not differ: in memory, the same over HTTP, and the real one.

Real (marker controlplane): etcd and kube-apiserver. Faked: elsewhere the API server. Observed: only
what clients are told. Rule: every test works in a namespace of its own.
"""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest

from kybernate.clients.kube import Kube
from kybernate.clients.kubeconfig import Access
from kybernate.clients.resources import NAMESPACES, SERVICEACCOUNTS
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube
from testbed.controlplane import ControlPlane

MANIFESTS = Path(__file__).parents[2] / "manifests"
REAL = pytest.param("plane", marks=pytest.mark.controlplane)
_PATIENCE_S = 30.0
_numbers = itertools.count(1)


@pytest.fixture(params=["memory", "http", REAL])
def kube(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kube]:
    """A client of each kind of server, as its administrator."""
    if request.param == "plane":
        client = Kube.from_kubeconfig(request.getfixturevalue("plane_with_kinds").admin_kubeconfig)
        yield client
        client.close()
    elif request.param == "http":
        with FakeHttp(FakeKube()) as served:
            client = Kube.from_kubeconfig(served.kubeconfig(tmp_path / "kubeconfig"))
            yield client
            client.close()
    else:
        yield FakeKube()


@pytest.fixture(scope="session")
def plane_with_kinds(plane: ControlPlane) -> ControlPlane:
    """The real control plane, knowing our custom resources."""
    plane.kubectl("apply", "-k", str(MANIFESTS / "components/crd"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return plane


@pytest.fixture
def namespace(request: pytest.FixtureRequest, kube: Kube) -> str:
    """A namespace of the test's own in which pods can be created."""
    name = f"clients-{next(_numbers)}-{time.time_ns():x}"
    kube.create(NAMESPACES, {"metadata": {"name": name}})
    # The real one refuses pods until its controller has made the account; the fakes do not ask.
    if request.node.callspec.params["kube"] == "plane":
        until(lambda: any(kube.list(SERVICEACCOUNTS, name)))
    return name


def until(holds: Callable[[], bool], seconds: float = _PATIENCE_S) -> None:
    """Look again until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"does not hold within {seconds} s"
        threading.Event().wait(0.002)


class ScriptedServer:
    """An HTTP server that answers each request with the next step of its script.

    Lists, watches and writes have a script each; the last step is repeated. `asked` has the
    queries.
    """

    def __init__(self) -> None:
        self.lists: list[Step] = []
        self.watches: list[Step] = []
        self.writes: list[Step] = []
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.times: list[float] = []
        self.ending = threading.Event()  # set at the end of the test: held connections let go
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._conversation())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kube(self) -> Kube:
        """A client of this server."""
        return Kube.of(Access(server=self.url))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def watched_from(self) -> list[str]:
        """The resourceVersion of each watch so far."""
        return [query["resourceVersion"] for query in self.asked if "watch" in query]

    def _conversation(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the other
        class Conversation(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = dict(parse_qsl(urlsplit(self.path).query))
                server.asked.append(query)
                server.times.append(time.monotonic())
                server.tokens.append(self.headers.get("Authorization", ""))
                reading = server.watches if "watch" in query else server.lists
                script = reading if self.command == "GET" else server.writes
                step = script.pop(0) if len(script) > 1 else script[0]
                self.close_connection = True
                step(self)

            do_POST = do_GET  # noqa: N815 - http.server's names

            def end_headers(self) -> None:
                # Said aloud: else the client may ask again on a connection that is about to close.
                self.send_header("Connection", "close")
                super().end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        return Conversation


Step = Callable[[Any], None]


class Steps:
    """What a scripted server can do."""

    @staticmethod
    def a_list(*objects: dict[str, Any], version: str, more: str = "") -> Step:
        body = {"metadata": {"resourceVersion": version, "continue": more}, "items": objects}
        return Steps.answer(200, body)

    @staticmethod
    def answer(status: int, body: dict[str, Any]) -> Step:
        return Steps.text(status, orjson.dumps(body))

    @staticmethod
    def text(status: int, content: bytes) -> Step:
        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        return step

    @staticmethod
    def events(*events: dict[str, Any], then: Callable[[], object] | None = None) -> Step:
        """Chunks, then `then()` (for example: wait), then an orderly end."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for event in events:
                line = orjson.dumps(event) + b"\n"
                # An event in two chunks: their borders mean nothing.
                for part in (line[:7], line[7:]):
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            handler.wfile.flush()
            if then is not None:
                then()
            handler.wfile.write(b"0\r\n\r\n")

        return step

    @staticmethod
    def broken(*events: dict[str, Any]) -> Step:
        """The same, and the connection breaks in the middle of a chunk."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for event in events:
                line = orjson.dumps(event) + b"\n"
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            handler.wfile.write(b"ffff\r\n{half")

        return step

    @staticmethod
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        """No answer at all."""
        handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A server to be given its lines."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def steps() -> type[Steps]:
    """What it can do."""
    return Steps


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., None]:
    """`until(lambda: ...)`: look again until it holds."""
    return until
