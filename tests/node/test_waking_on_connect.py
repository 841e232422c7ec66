"""
A parked pod of a real node wakes when somebody asks it, and leaves its GPU when nobody does.

What is real: see conftest. Faked beside: policy's word on who is idle (the pod's own wish). Nothing
is asserted to stay as it is for a while: what woke a pod stands in its event, so that a later wake
shows that an earlier one did not happen.
"""

import json
import os
import queue
import socket
import struct
from pathlib import Path

import grpc
import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PROGRAM = (Path(__file__).parent / "talking.py").read_text()
TALKER = WorkloadKey("default", "talker")
PATIENCE_S = 60.0
RESET = struct.pack("ii", 1, 0)


class Talker:
    """The pod that talks, and who talks to it."""

    def __init__(self, seats, name="talker"):
        self.seats, self.name = seats, name

    @property
    def address(self):
        return self.seats.pod(self.name)["status"]["podIP"]

    def connect(self, port=9000):
        return socket.create_connection((self.address, port), timeout=PATIENCE_S)

    def park(self):
        with self.seats.agent() as agent:
            outcome = agent.park(TALKER, within=PATIENCE_S)
        assert outcome.ok, outcome

    def notes(self, reason):
        """Of its events, oldest first."""
        found = json.loads(self.seats.kubectl("get", "events.events.k8s.io", "-o", "json"))
        ours = [
            one
            for one in found["items"]
            if one["regarding"]["name"] == self.name and one["reason"] == reason
        ]
        return [one["note"] for one in sorted(ours, key=lambda one: one["eventTime"] or "")]

    def await_note(self, reason, words, after=0):
        def look():
            return any(words in note for note in self.notes(reason)[after:])

        wait_for(look, f"an event {reason} says {words!r}", PATIENCE_S)


@pytest.fixture(scope="module")
def talker(seat_node):
    """One for all tests here, active when a test begins."""
    body = seat_node.body("talker", vram="20Gi")
    body["spec"]["containers"][0]["command"] = ["python3", "-c", PROGRAM]
    seat_node.kept.add("talker")
    seat_node.kubectl_in("create", body)
    seat_node.await_state("talker", "Active")
    pod = Talker(seat_node)
    wait_for(lambda: _says(pod, b"hello\n"), "it talks", PATIENCE_S)
    yield pod
    seat_node.kept.discard("talker")
    seat_node.kubectl("delete", "pod", "talker", "--force", "--grace-period=0")


def _says(pod, line):
    try:
        with pod.connect() as one:
            return said(one, line) == line
    except OSError:
        return False


def said(line, text):
    line.sendall(text)
    return heard(line, len(text))


def heard(line, size):
    found = b""
    while len(found) < size and (more := line.recv(size - len(found))):
        found += more
    return found


def test_the_first_byte_wakes_a_parked_model(seats):
    seats.serve("model")
    seats.await_state("model", "Active")
    assert seats.predict("model")["counter"] == 1
    with seats.agent() as agent:
        assert agent.park(WorkloadKey("default", "model"), within=PATIENCE_S).ok
    answer = seats.predict("model")
    assert (answer["counter"], answer["intact"]) == (2, True)


def test_a_connection_older_than_the_park_wakes_it(talker):
    with talker.connect() as one:
        assert said(one, b"before\n") == b"before\n"
        talker.park()
        assert said(one, b"after\n") == b"after\n"
    talker.await_note("Resumed", "at port 9000")


def test_grpc_and_websocket_streams_go_on_over_a_park(talker):
    channel = grpc.insecure_channel(f"{talker.address}:9001")
    sent = Fed(2)
    answers = channel.stream_stream("/t.T/Echo")(sent)
    sent.give(b"one")
    assert next(answers) == b"one"
    with talker.connect(9002) as web:
        assert b"101" in greeted(web)
        assert said_in_a_frame(web, b"one") == b"one"
        talker.park()
        assert said_in_a_frame(web, b"two") == b"two"
        talker.park()
        sent.give(b"two")
        assert next(answers) == b"two"
    channel.close()


def test_who_went_away_wakes_nobody_and_who_came_then_does(talker):
    with talker.connect() as resets, talker.connect() as ends:
        assert (said(resets, b"a\n"), said(ends, b"b\n")) == (b"a\n", b"b\n")
        before = len(talker.notes("Resumed"))
        talker.park()
        resets.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        resets.close()
        ends.shutdown(socket.SHUT_WR)
        half_open(talker.address, 9000)
        with talker.connect(9002) as web:
            assert b"101" in greeted(web)
        talker.await_note("Resumed", "at port 9002", after=before)


def half_open(address, port):
    """The first packet of a handshake that nobody finishes."""
    ours, theirs = socket.inet_aton("203.0.113.7"), socket.inet_aton(address)
    segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 0x02, 1024, 0, 0)
    pseudo = ours + theirs + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment))
    total = sum(struct.unpack(f"!{len(pseudo + segment) // 2}H", pseudo + segment))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    segment = segment[:16] + struct.pack("!H", check) + segment[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + ours + theirs
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(head + segment, (address, 0))


def test_more_clients_than_the_accept_queue_has_room_for_are_all_answered(talker):
    talker.park()
    lines = []
    for number in range(9):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex((talker.address, 9000))
        lines.append((b"client %d\n" % number, one))
    for text, one in lines:
        one.settimeout(PATIENCE_S)
        wait_for(lambda one=one: connected(one), "it is connected", PATIENCE_S)
        assert said(one, text) == text
        one.close()


def connected(line):
    try:
        line.getpeername()
    except OSError:
        return False
    return True


def test_who_asks_while_the_agent_is_away_waits_until_it_is_back(talker):
    talker.park()
    talker.seats.kill_agent()
    try:
        line = talker.connect()
        line.sendall(b"anybody\n")
    finally:
        talker.seats.start_agent()
    with line:
        assert heard(line, 8) == b"anybody\n"
    talker.seats.await_state("talker", "Active")


def test_an_idle_pod_leaves_its_gpu_and_never_under_a_request(talker, seats):
    talker.park()
    body = seats.body("sleeper", vram="20Gi")
    body["spec"]["containers"][0]["command"] = ["python3", "-c", PROGRAM]
    body["metadata"]["annotations"]["kyb.ai/idle-after"] = "2s"
    seats.create(body)
    sleeper = Talker(seats, "sleeper")
    sleeper.await_note("Idle", "it had no work for")
    seats.await_state("sleeper", "Parked")
    with sleeper.connect() as line:
        assert said(line, b"wait 4\n") == b"wait 4\n"
        assert len(sleeper.notes("Parked")) == 1, "parked once, before it was asked"
    seats.await_state("sleeper", "Parked")


class Fed:
    """An iterator that is fed."""

    def __init__(self, most):
        self._given = queue.Queue()
        self._left = most

    def give(self, item):
        self._given.put(item)

    def __iter__(self):
        return self

    def __next__(self):
        if not self._left:
            raise StopIteration
        self._left -= 1
        return self._given.get(timeout=PATIENCE_S)


def greeted(web):
    """The answer to a handshake."""
    web.sendall(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: YQ==\r\n\r\n")
    found = b""
    while not found.endswith(b"\r\n\r\n") and (more := web.recv(4096)):
        found += more
    return found


def said_in_a_frame(line, text):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
    line.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
    return heard(line, len(text) + 2)[2:]
