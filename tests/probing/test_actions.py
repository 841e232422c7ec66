"""
Users' own probes, against real servers. Real: sockets, HTTP, TLS, gRPC. Faked: the pod's network
(it is ours), except in the last test, which has a network namespace of its own.
"""

import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

from kybernate.model.probing import Exec, Grpc, HttpGet, Sleep, TcpSocket
from kybernate.runtime.clock import SystemClock
from nodeagent.linux import processes
from nodeagent.probing.actions import PodActions
from nodeagent.probing.netns import Namespaces, Process, connect
from testbed.pki import Authority

HERE = Process(0, 0)
LONG_S = 30.0  # where an answer is expected
SHORT_S = 0.3  # where none is


class OurNetwork:
    def socket(self, process, family, kind):
        return socket.socket(family, kind)

    def address(self, process):
        return "127.0.0.1"


@pytest.fixture
def actions():
    return PodActions(OurNetwork(), SystemClock())


class Routes(BaseHTTPRequestHandler):
    """`/301/x` leads to x, `/404` answers 404, `/drip` answers a byte at a time, `/slow`
    leads to itself, but not at once."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers.items())))
        word, _, rest = self.path[1:].partition("/")
        if word == "drip":
            while not self.server.over.wait(0.02):
                self.wfile.write(b"H")
        if word == "slow":
            self.server.over.wait(0.15)
            word, rest = "301", "/slow"
        status = int(word) if word.isdigit() else 200
        self.send_response(status)
        if 300 <= status < 400 and rest:
            self.send_header("Location", rest.replace("PORT", str(self.server.server_port)))
        self.end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def served(tls=None):
    with ThreadingHTTPServer(("127.0.0.1", 0), Routes) as server:
        server.asked, server.over, server.daemon_threads = [], threading.Event(), True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server():
    with served() as running:
        yield running


@pytest.mark.parametrize(
    ("path", "passed"),
    [
        pytest.param("/200", True, id="200"),
        pytest.param("/204", True, id="204"),
        pytest.param("/399", True, id="399"),
        pytest.param("/400", False, id="400"),
        pytest.param("/503", False, id="503"),
        pytest.param("/301//204", True, id="redirected"),
        pytest.param("/307//404", False, id="redirected-to-a-failure"),
        pytest.param("/302/http://127.0.0.1:PORT/404", False, id="redirected-with-a-host"),
        pytest.param("/302/http://elsewhere.example/404", True, id="redirected-elsewhere"),
        pytest.param("/302", True, id="redirected-nowhere"),
        pytest.param("/302/ftp://127.0.0.1/", True, id="redirected-to-another-protocol"),
    ],
)
def test_an_http_answer_below_400_is_good(actions, server, path, passed):
    outcome = actions.run(HttpGet(port=server.server_port, path=path), HERE, LONG_S)
    assert outcome.passed is passed, outcome.say


def test_redirects_in_a_circle_come_to_an_end(actions, server):
    path = "/301/" * 20
    outcome = actions.run(HttpGet(port=server.server_port, path=path), HERE, LONG_S)
    assert not outcome.passed
    assert "stopped after 10 redirects" in outcome.say


def test_redirects_that_take_their_time_are_late_all_together(actions, server):
    outcome = actions.run(HttpGet(port=server.server_port, path="/slow"), HERE, 0.4)
    assert (outcome.passed, outcome.say) == (False, "HTTP probe failed: no answer within 0.4 s")


def test_an_http_probe_sends_what_was_asked_for(actions, server):
    headers = (("Host", "model.example"), ("X-Token", "ü"), ("Accept", "text/plain"))
    action = HttpGet(port=server.server_port, path="/a b?x=1&y=%2F#part", headers=headers)
    assert actions.run(action, HERE, LONG_S).passed
    ((path, sent),) = server.asked
    assert path == "/a%20b?x=1&y=%2F"
    assert sent["Host"] == "model.example"
    assert sent["X-Token"].encode("latin-1").decode() == "ü"
    assert sent["Accept"] == "text/plain"
    assert sent["User-Agent"].startswith("kube-probe/")


def test_an_http_probe_says_its_own_address_where_no_host_was_asked_for(actions, server):
    assert actions.run(HttpGet(port=server.server_port), HERE, LONG_S).passed
    ((_, sent),) = server.asked
    assert sent["Host"] == f"127.0.0.1:{server.server_port}"
    assert sent["Accept"] == "*/*"


def test_an_https_probe_trusts_any_certificate(actions, tmp_path):
    identity = Authority(tmp_path).issue("model", common_name="model")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(identity.certificate, identity.key)
    with served(tls) as server:
        outcome = actions.run(HttpGet(port=server.server_port, tls=True), HERE, LONG_S)
        assert outcome.passed, outcome.say
        plain = actions.run(HttpGet(port=server.server_port), HERE, LONG_S)
        assert not plain.passed


def test_an_answer_that_comes_drop_by_drop_is_late(actions, server):
    outcome = actions.run(HttpGet(port=server.server_port, path="/drip"), HERE, SHORT_S)
    assert (outcome.passed, outcome.say) == (False, "HTTP probe failed: no answer within 0.3 s")


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(lambda port: HttpGet(port=port), id="http"),
        pytest.param(lambda port: Grpc(port=port), id="grpc"),
    ],
)
def test_one_who_accepts_and_says_nothing_fails_in_time(actions, action):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcome = actions.run(action(silent.getsockname()[1]), HERE, SHORT_S)
    assert not outcome.passed
    assert "within 0.3 s" in outcome.say or "DEADLINE_EXCEEDED" in outcome.say


@pytest.mark.parametrize("kind", [HttpGet, TcpSocket, Grpc])
def test_where_nobody_listens_it_is_said(actions, kind):
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
    outcome = actions.run(kind(port=port), HERE, LONG_S)
    assert not outcome.passed
    assert "refused" in outcome.say


def test_a_connection_is_all_a_tcp_probe_wants(actions):
    with socket.create_server(("127.0.0.1", 0)) as there:
        assert actions.run(TcpSocket(port=there.getsockname()[1]), HERE, LONG_S).passed


def test_a_sleep_and_what_is_not_for_here_pass(actions):
    assert actions.run(Sleep(seconds=0), HERE, LONG_S).passed
    assert actions.run(Exec(command=("x",)), HERE, LONG_S).passed
    assert actions.run(None, HERE, LONG_S).passed


@contextmanager
def health(answers):
    """A gRPC server; `answers` by the service's name."""

    def check(request, context):
        if request not in answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answers[request]

    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)} if answers else {}
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


@pytest.mark.parametrize(
    ("service", "passed", "said"),
    [
        pytest.param("", True, "", id="the-server"),
        pytest.param("down", False, "NOT_SERVING", id="not-serving"),
        pytest.param("unknown", False, "UNKNOWN", id="unknown"),
        pytest.param("other", False, "NOT_FOUND: unknown service", id="absent"),
        pytest.param("n" * 300, True, "", id="a-long-name"),
    ],
)
def test_serving_is_what_a_grpc_probe_wants(actions, service, passed, said):
    long = b"\x0a\xac\x02" + b"n" * 300
    answers = {b"": SERVING, b"\x0a\x04down": NOT_SERVING, b"\x0a\x07unknown": b"", long: SERVING}
    with health(answers) as port:
        outcome = actions.run(Grpc(port=port, service=service), HERE, LONG_S)
    assert outcome.passed is passed
    assert said in outcome.say


def test_a_grpc_server_without_health_is_told_so(actions):
    with health({}) as port:
        outcome = actions.run(Grpc(port=port), HERE, LONG_S)
    assert not outcome.passed
    assert "does not implement the grpc health protocol" in outcome.say


# A process in a network namespace of its own, listening there on its loopback.
CHILD = """
import ctypes, fcntl, socket, struct
if ctypes.CDLL(None, use_errno=True).setns and ctypes.CDLL(None).unshare(0x40000000) != 0:
    raise SystemExit("no network namespace can be made here")
up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:
    fcntl.ioctl(any, 0x8914, up)
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
input()
"""


@pytest.fixture
def elsewhere():
    """(process, port) in another network namespace."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        line = child.stdout.readline()
        if line.strip():
            yield Process(child.pid, processes.started(child.pid)), int(line)
        child.stdin.close()
        child.wait()
    if not line.strip():
        pytest.skip("no network namespace can be made here")


def test_a_socket_is_made_in_the_pods_network_and_nowhere_else(elsewhere):
    process, port = elsewhere
    network = Namespaces()
    assert network.address(process) == "127.0.0.1"
    with connect(network, process, "127.0.0.1", port, LONG_S) as line:
        assert line.getpeername() == ("127.0.0.1", port)
    actions = PodActions(network, SystemClock())
    assert actions.run(TcpSocket(port=port), process, LONG_S).passed
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), LONG_S)
    with socket.create_server(("127.0.0.1", 0)) as ours:
        there = actions.run(TcpSocket(port=ours.getsockname()[1]), process, LONG_S)
    assert not there.passed


def test_a_process_that_ended_has_no_network(elsewhere):
    process, _ = elsewhere
    actions = PodActions(Namespaces(), SystemClock())
    for other in (Process(process.pid, process.started + 1), Process(2**22 + 1, 1)):
        assert not actions.run(TcpSocket(port=80), other, LONG_S).passed
