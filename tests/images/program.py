"""
Runs in a container: holds one of everything a server holds, and tells how each of them is.

`python -c SOURCE`. `GET /` on port 8080 answers one JSON object.
"""

import ctypes
import fcntl
import json
import mmap
import multiprocessing
import multiprocessing.shared_memory
import os
import select
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MEBI = 2**20
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append("SIGUSR1"))


def echo(listener):
    """Answer every line of the first who connects with itself in capitals."""
    one, _ = listener.accept()
    for line in one.makefile("rb"):
        one.sendall(line.upper())


def pair(family, address):
    """A connection of this process with itself."""
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    client = socket.create_connection(listener.getsockname()) if family != socket.AF_UNIX else None
    if client is None:
        client = socket.socket(family)
        client.connect(address)
    client.settimeout(10)
    return listener, client


def asked(client):
    try:
        client.sendall(b"hello\n")
        return client.recv(100).decode()
    except OSError as error:
        return type(error).__name__


class Counter(threading.Thread):
    """Counts."""

    def __init__(self):
        super().__init__(daemon=True)
        self.count = 0
        self.start()

    def run(self):
        never = threading.Event()
        while not never.wait(0.01):
            self.count += 1


def child(line, semaphore):
    """Another process: counts what it is asked."""
    count = 0
    while True:
        line.recv()
        with semaphore:
            count += 1
        line.send(count)


def address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.18.0.1", 9))
        return probe.getsockname()[0]


class Everything:
    def __init__(self):
        self.counter = Counter()
        fork = multiprocessing.get_context("fork")
        self.line, its = fork.Pipe()
        self.semaphore = fork.Semaphore()  # a file in /dev/shm that has no name any more
        fork.Process(target=child, args=(its, self.semaphore), daemon=True).start()
        self.unix = pair(socket.AF_UNIX, "/tmp/named")
        self.loopback = pair(socket.AF_INET, ("127.0.0.1", 0))
        self.own = pair(socket.AF_INET, (address(), 0))
        self.halves = socket.socketpair()
        self.outside = socket.create_server(("0.0.0.0", 9000))
        self.accepted = []
        threading.Thread(target=self.accept, daemon=True).start()
        self.gone = Path("/tmp/gone").open("w+")  # noqa: SIM115 - held
        self.gone.write("x" * 3 * MEBI)
        self.gone.flush()
        Path("/tmp/gone").unlink()
        self.shared = multiprocessing.shared_memory.SharedMemory("kept", create=True, size=MEBI)
        self.shared.buf[:5] = b"kept!"
        Path("/dev/shm/plain").write_text("plain")
        Path("/scratch/file").write_text("scratch")
        self.unlinked = Path("/dev/shm/torn").open("w+b")  # noqa: SIM115
        self.unlinked.truncate(2 * MEBI)
        self.torn = mmap.mmap(self.unlinked.fileno(), 2 * MEBI)
        Path("/dev/shm/torn").unlink()
        self.torn[:4] = b"torn"
        Path("/data/new/deep").mkdir(parents=True)
        Path("/data/new/deep/file").write_text("new")
        Path("/bin/true").rename("/bin/renamed")
        Path("/bin/false").unlink()
        self.log = Path("/data/log").open("a")  # noqa: SIM115
        fcntl.flock(self.log, fcntl.LOCK_EX)
        self.cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        libc = ctypes.CDLL(None)
        self.watch = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self.watch, b"/data/log", 2) > 0  # IN_MODIFY
        self.memfd = os.memfd_create("mine")
        os.write(self.memfd, b"memfd")
        self.event = os.eventfd(3)
        self.poll = select.epoll()
        self.poll.register(self.event, select.EPOLLIN)

    def accept(self):
        while True:
            self.accepted.append(self.outside.accept()[0])

    def piped(self):
        self.cat.stdin.write(b"through\n")
        self.cat.stdin.flush()
        return self.cat.stdout.readline().decode().strip()

    def child(self):
        self.line.send(None)
        return self.line.recv()

    def closed(self):
        """What is left of connections to the outside."""
        said = []
        for one in self.accepted:
            one.setblocking(False)
            try:
                said.append(one.recv(10).decode())
            except BlockingIOError:
                said.append("open")
            except OSError as error:
                said.append(type(error).__name__)
        return said

    def own_halves(self):
        self.halves[0].send(b"half")
        return self.halves[1].recv(10).decode()

    def report(self):
        self.gone.seek(0)
        self.log.write("line\n")
        self.log.flush()
        return {
            "watch": len(os.read(self.watch, 4096)) > 0,
            "count": self.counter.count,
            "child": self.child(),
            "unix": asked(self.unix[1]),
            "loopback": asked(self.loopback[1]),
            "own": asked(self.own[1]),
            "own-address": self.own[1].getpeername()[0] == address(),
            "halves": self.own_halves(),
            "outside": self.closed(),
            "gone": len(self.gone.read()),
            "shared": bytes(self.shared.buf[:5]).decode(),
            "plain": Path("/dev/shm/plain").read_text(),
            "scratch": Path("/scratch/file").read_text(),
            "torn": self.torn[:4].decode(),
            "new": Path("/data/new/deep/file").read_text(),
            "renamed": [Path("/bin", name).exists() for name in ("true", "renamed", "false")],
            "log": len(Path("/data/log").read_text().splitlines()),
            "pipe": self.piped(),
            "memfd": os.pread(self.memfd, 10, 0).decode(),
            "event": [event for _, event in self.poll.poll(0)],
            "host": os.uname().nodename,
            "told": told,
            "pid": os.getpid(),
            "user": os.getuid(),
        }


class Routes(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            body = json.dumps(everything.report()).encode()
        except Exception as error:
            body = json.dumps({"failed": repr(error)}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


everything = Everything()
server = ThreadingHTTPServer(("0.0.0.0", 8080), Routes)
server.daemon_threads = True
print("serving", flush=True)
server.serve_forever()
