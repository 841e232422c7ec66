"""
A workload that is told to close its connection is waited for.

Real: processes and their sockets.
"""

import subprocess
import sys
import threading

import pytest

from nodeagent.mechanisms import NotYet, hangup

SERVER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    one.bind(sys.argv[1])
    one.listen()
    print("listens", flush=True)
    taken = []
    while True:
        taken.append(one.accept())
"""
WORKLOAD = """
import socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.readline()
line.close()
sys.stdin.readline()
"""


@pytest.fixture
def running(short_socket):
    """A server, and a workload that is connected to it."""
    started = []

    def start(program):
        argv = [sys.executable, "-c", program, str(short_socket)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(argv, text=True, **pipes))
        assert started[-1].stdout.readline()
        return started[-1]

    start(SERVER)
    yield start(WORKLOAD), short_socket
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture
def short_socket(tmp_path_factory):
    """Paths of unix sockets are short."""
    return tmp_path_factory.mktemp("s") / "s"


def test_one_that_stays_connected_is_given_up_on(running):
    workload, address = running
    with pytest.raises(NotYet, match="did not close"):
        hangup.await_closed(workload.pid, address, 0.1)


def test_it_is_waited_for_until_the_connection_is_closed(running):
    workload, address = running
    waits = threading.Thread(target=hangup.await_closed, args=(workload.pid, address, 60.0))
    waits.start()
    waits.join(0.1)
    assert waits.is_alive()
    workload.stdin.write("close\n")
    workload.stdin.flush()
    waits.join(60.0)
    assert not waits.is_alive()


def test_connections_to_others_are_nobodys_concern(running, tmp_path):
    workload, _ = running
    hangup.await_closed(workload.pid, tmp_path / "nobody", 60.0)
