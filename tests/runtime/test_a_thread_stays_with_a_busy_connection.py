"""
The server's threads: one stays with a connection that goes on asking, and nobody waits for it.

Real: gunicorn in a process of its own, over a socket. The application tells which thread answered.
"""

import http.client
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from testbed import ports

SERVER = """
import sys, threading
from flask import Flask
from kybernate.runtime.wsgi import Running, Serving, WsgiServer

def build():
    app = Flask("who")
    app.wsgi_app = answer
    return Running(app, lambda: None)

def answer(environ, start):
    body = threading.current_thread().name.encode()
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

WsgiServer(Serving(name="who", listen=sys.argv[1], threads=int(sys.argv[2])), build).run()
"""


class Server:
    """A running one."""

    def __init__(self, threads: int) -> None:
        self.port = ports.guess()
        listen = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, listen, str(threads)])

    def connect(self) -> http.client.HTTPConnection:
        """As soon as it listens."""
        deadline = time.monotonic() + 60
        while True:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                client.connect()
                return client
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "it does not listen"
                threading.Event().wait(0.02)


@pytest.fixture(params=[1, 3], ids=["one-thread", "three-threads"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    started = Server(request.param)
    yield started
    started.process.terminate()
    started.process.wait(60)


def ask(client: http.client.HTTPConnection) -> str:
    client.request("POST", "/filter", b"x" * 20_000)
    return client.getresponse().read().decode()


def test_connections_that_all_go_on_asking_are_all_answered(server: Server) -> None:
    clients = [server.connect() for _ in range(6)]
    for _ in range(30):
        for client in clients:
            assert ask(client)
    for client in clients:
        client.close()


@pytest.mark.parametrize("server", [3], ids=["three-threads"], indirect=True)
def test_a_connection_that_goes_on_asking_keeps_its_thread(server: Server) -> None:
    client = server.connect()
    threads = [ask(client) for _ in range(200)]
    changes = sum(a != b for a, b in itertools.pairwise(threads))
    assert changes < 100  # a pause of ours may be long on a busy machine, not half of them
    client.close()


def test_a_request_sent_behind_another_is_answered_too(server: Server) -> None:
    client = server.connect()
    request = b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    client.sock.sendall(request * 3)
    got = b""
    while got.count(b"200 OK") < 3:
        more = client.sock.recv(65536)
        assert more, got
        got += more
    client.close()


def test_an_open_connection_does_not_hold_up_a_stop(server: Server) -> None:
    client = server.connect()
    ask(client)
    began = time.monotonic()
    server.process.terminate()
    server.process.wait(60)
    assert time.monotonic() - began < 30
    client.close()
