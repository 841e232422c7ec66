"""What the kernel says of sockets. Real: sockets of this machine's loopback, and netlink."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from kybernate.clients.clock import Clock
from kybernate.model.callers import NOBODY
from kybernate.runtime.clock import SystemClock
from kybernate.testing.agentnode import wait_for
from nodeagent.demand import sockdiag
from nodeagent.demand.sockdiag import Socket, Tcp
from nodeagent.demand.sockets import Sockets
from nodeagent.disk.records import Mark
from nodeagent.linux.cgroups import Cgroups
from nodeagent.lives.life import Life

RESET = struct.pack("ii", 1, 0)


class Server:
    """A listener of this process, looked at from outside."""

    def __init__(self, stack: ExitStack, family: int, address: str) -> None:
        self.stack, self.family, self.address = stack, family, address
        self.line = stack.enter_context(
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, sockdiag.PROTOCOL)
        )
        self.listener = stack.enter_context(socket.socket(family))
        self.listener.bind((address, 0))
        self.listener.listen(2)
        self.port = self.listener.getsockname()[1]

    def connect(self) -> socket.socket:
        one = self.stack.enter_context(socket.socket(self.family))
        one.settimeout(10.0)
        one.connect((self.address, self.port))
        return one

    def look(self, _: Life) -> tuple[Socket, ...]:
        """At the server's port: other tests of this process have sockets too."""
        return tuple(one for one in sockdiag.look(self.line) if one.port == self.port)

    def seen(self, *states: Tcp) -> list[Socket]:
        """At the server's port."""
        return [
            one for one in sockdiag.look(self.line) if one.port == self.port and one.state in states
        ]


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["v4", "v6"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of either family."""
    family, address = request.param
    with ExitStack() as stack:
        try:
            yield Server(stack, family, address)
        except OSError as error:
            pytest.skip(f"no loopback of this family: {error}")


def test_who_waits_to_be_accepted_is_seen_with_what_it_sent(server: Server) -> None:
    server.connect().sendall(b"hello")
    (waiting,) = wait_for(
        lambda: [s for s in server.seen(Tcp.ESTABLISHED) if s.unread], "its bytes are seen"
    )
    assert (waiting.unread, waiting.inode, waiting.peer) == (5, 0, server.address)
    assert waiting.received == 5
    (listener,) = server.seen(Tcp.LISTEN)
    assert (listener.unread, listener.most) == (1, 2)
    assert listener.inode == os.fstat(server.listener.fileno()).st_ino


def test_an_accepted_connection_has_an_inode_and_ages(server: Server) -> None:
    client = server.connect()
    accepted, _ = server.listener.accept()
    with accepted:
        client.sendall(b"ask")
        assert accepted.recv(9) == b"ask"
        (open_,) = server.seen(Tcp.ESTABLISHED)
        assert open_.inode == os.fstat(accepted.fileno()).st_ino
        assert (open_.unread, open_.received) == (0, 3)
        assert 0 <= open_.received_ago < 60


def test_who_reset_before_being_accepted_is_seen_in_the_queues_length_only(server: Server) -> None:
    client = server.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    wait_for(lambda: not server.seen(Tcp.ESTABLISHED, Tcp.CLOSE_WAIT), "it is gone")
    assert server.seen(Tcp.LISTEN)[0].unread == 1


def test_who_closed_its_side_is_seen_with_one_byte_for_the_end(server: Server) -> None:
    client = server.connect()
    client.sendall(b"all")
    client.shutdown(socket.SHUT_WR)
    (ended,) = wait_for(lambda: server.seen(Tcp.CLOSE_WAIT), "its end is seen")
    assert ended.unread == 4


def test_a_full_queue_says_so(server: Server) -> None:
    for _ in range(3):
        server.connect()
    wait_for(lambda: server.seen(Tcp.LISTEN)[0].unread > 2, "it is full")


def test_a_parked_workloads_own_sockets_are_told_from_all_others(server: Server, a_life) -> None:
    clock: Clock = SystemClock()
    mine = a_life("a", pid=os.getpid(), mark=Mark.PARKED)
    signal = Sockets(server.look, lambda: NOBODY, lambda _: False, Cgroups(), clock)
    assert not signal.read(mine).wanted
    server.connect().sendall(b"hello")
    demand = wait_for(lambda: signal.read(mine).wanted and signal.read(mine), "it is wanted")
    assert f"at port {server.port}" in demand.why
    stranger = a_life("b", pid=2**22 - 1, mark=Mark.PARKED)
    assert not signal.read(stranger).wanted


def test_a_running_one_is_busy_while_a_client_waits_and_idle_from_then_on(
    server: Server, a_life
) -> None:
    signal = Sockets(
        server.look,
        lambda: NOBODY,
        lambda _: False,
        Cgroups(),
        SystemClock(),
    )
    mine = a_life("a", pid=os.getpid())
    client = server.connect()
    accepted, _ = server.listener.accept()
    with accepted:
        client.sendall(b"ask")
        busy = wait_for(lambda: signal.read(mine).busy and signal.read(mine), "it is busy")
        assert (busy.wanted, busy.in_flight, busy.idle_for) == (False, 1, 0.0)
        accepted.recv(9)
        accepted.sendall(b"answer")
        wait_for(lambda: not signal.read(mine).busy, "it is not")
        wait_for(lambda: (signal.read(mine).idle_for or 0.0) > 0.05, "it is idle")


def test_what_trains_is_not_judged_by_its_connections(server: Server, a_life) -> None:
    mine = a_life("a", pid=os.getpid(), terms={"workload_class": "training"})
    signal = Sockets(
        server.look,
        lambda: NOBODY,
        lambda _: False,
        Cgroups(),
        SystemClock(),
    )
    server.connect().sendall(b"hello")
    assert signal.read(mine).idle_for is None
    assert not signal.read(mine).busy
