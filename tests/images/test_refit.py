"""An image's sockets made to fit another pod, on files as CRIU writes them."""

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.images import pages, wire
from nodeagent.images import refit as refitting
from nodeagent.images.wire import Message

HEAD = b"\x19\x43\x56\x54\x00\x00\x00\x00"
OLD, NEW = ipaddress.ip_address("10.1.0.2"), ipaddress.ip_address("10.2.0.9")
MOVED = {OLD: NEW}
ESTABLISHED, LISTEN, CLOSE = 1, 10, 7


def address(text):
    packed = ipaddress.ip_address(text).packed
    return [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)]


def inet(source, target=("0.0.0.0", 0), state=ESTABLISHED, proto=socket.IPPROTO_TCP):
    """A file_entry with an inet_sk_entry."""
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    isk = Message()
    numbers = {1: 5, 2: 77, 3: family, 4: 1, 5: proto, 6: state, 7: source[1], 8: target[1], 9: 2}
    for number, value in numbers.items():
        isk.put(number, value)
    isk.put(11, *address(source[0]))
    isk.put(12, *address(target[0] if family == socket.AF_INET or ":" in target[0] else "::"))
    isk.put(13, b"\x08\x01")
    isk.put(19, 1)
    file = Message()
    file.put(1, 4)
    file.put(4, isk.raw())
    return file.raw()


@pytest.fixture
def refit(tmp_path):
    def run(*entries, moved=MOVED):
        wire.write(tmp_path / "files.img", HEAD, entries)
        closed = refitting.sockets(tmp_path / "files.img", tmp_path / "new.img", moved)
        head, found = wire.read(tmp_path / "new.img")
        assert head == HEAD
        return closed, [Message(one).message(4) for one in found]

    return run


def ends(isk):
    return [
        (str(refitting._address(isk, where)), isk.number(port))
        for where, port in ((11, 7), (12, 8))
    ]


LOOP_A, LOOP_B = ("127.0.0.1", 9000), ("127.0.0.1", 40000)


def test_a_loopback_connection_with_both_ends_here_stays(refit):
    closed, found = refit(inet(LOOP_A, LOOP_B), inet(LOOP_B, LOOP_A))
    assert closed == 0
    assert [ends(one) for one in found] == [[LOOP_A, LOOP_B], [LOOP_B, LOOP_A]]


def test_a_connection_over_the_pods_own_address_stays_and_moves(refit):
    one, other = (str(OLD), 29500), (str(OLD), 40000)
    closed, found = refit(inet(one, other), inet(other, one))
    assert closed == 0
    assert ends(found[0]) == [(str(NEW), 29500), (str(NEW), 40000)]
    assert found[0].number(6) == ESTABLISHED


def test_an_ipv4_end_and_an_ipv6_end_of_one_connection_belong_together(refit):
    mapped = (f"::ffff:{OLD}", 29500), (f"::ffff:{OLD}", 40000)
    closed, found = refit(inet(*mapped), inet((str(OLD), 40000), (str(OLD), 29500)))
    assert closed == 0
    assert ends(found[0])[0] == (str(ipaddress.ip_address(f"::ffff:{NEW}")), 29500)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param((str(OLD), 8080), ("10.9.9.9", 5555), id="to-outside"),
        pytest.param(LOOP_A, LOOP_B, id="to-a-sidecar"),
        pytest.param(("fd00::1", 8080), ("fd00::2", 5555), id="ipv6"),
    ],
)
def test_a_connection_whose_other_end_is_not_here_is_closed(refit, source, target):
    closed, (found,) = refit(inet(source, target))
    assert closed == 1
    assert found.number(6) == CLOSE
    assert [port for _, port in ends(found)] == [0, 0]
    assert {int(ipaddress.ip_address(a)) for a, _ in ends(found)} == {0}
    assert (found.number(1), found.number(2), found.number(9)) == (5, 77, 2)
    assert found.message(13).raw() == b"\x08\x01"


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ((str(OLD), 80), (str(NEW), 80)),
        (("0.0.0.0", 80), ("0.0.0.0", 80)),
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("10.7.7.7", 80), ("10.7.7.7", 80)),
    ],
)
def test_a_listener_is_where_the_new_pod_is(refit, bound, expected):
    _, (found,) = refit(inet(bound, state=LISTEN))
    assert ends(found)[0] == expected
    assert found.number(6) == LISTEN


def test_a_datagram_socket_keeps_whom_it_sends_to(refit):
    closed, (found,) = refit(inet((str(OLD), 999), ("10.9.9.9", 53), proto=socket.IPPROTO_UDP))
    assert closed == 0
    assert ends(found) == [(str(NEW), 999), ("10.9.9.9", 53)]


def test_other_files_stay_byte_for_byte(tmp_path):
    other = b"\x08\x01\x10\x05\x1a\x03abc\x25\x01\x02\x03\x04"
    wire.write(tmp_path / "files.img", HEAD, [other])
    refitting.sockets(tmp_path / "files.img", tmp_path / "new.img", MOVED)
    assert (tmp_path / "new.img").read_bytes() == (tmp_path / "files.img").read_bytes()


def test_the_image_itself_is_never_written_to(tmp_path):
    wire.write(tmp_path / "files.img", HEAD, [inet(LOOP_A, LOOP_B)])
    before = (tmp_path / "files.img").read_bytes()
    (tmp_path / "link.img").symlink_to(tmp_path / "files.img")
    refitting.sockets(tmp_path / "files.img", tmp_path / "link.img", MOVED)
    assert (tmp_path / "files.img").read_bytes() == before
    assert not (tmp_path / "link.img").is_symlink()


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"\x01",
        HEAD + struct.pack("<I", 9) + b"short",
        HEAD + struct.pack("<I", 2) + b"\x22\x7f",
        HEAD + struct.pack("<I", 1) + b"\xff",
        HEAD + struct.pack("<I", 1) + b"\x0b",
    ],
)
def test_what_criu_did_not_write_is_refused(tmp_path, raw):
    (tmp_path / "files.img").write_bytes(raw)
    with pytest.raises(wire.NotAnImage):
        refitting.sockets(tmp_path / "files.img", tmp_path / "new.img", MOVED)


def test_a_pending_signal_is_taken_out_and_the_others_stay(tmp_path):
    def queue(*numbers):
        signals = Message()
        signals.put(1, *(entry_of(number) for number in numbers))
        return signals.raw()

    def entry_of(number):
        one = Message()
        one.put(1, struct.pack("<iii", number, 0, 0) + bytes(116))
        return one.raw()

    core, task, thread = Message(), Message(), Message()
    task.put(1, 1)
    task.put(10, queue(18, 10, 18))
    thread.put(9, queue(18))
    core.put(1, 1)
    core.put(3, task.raw())
    core.put(5, thread.raw())
    wire.write(tmp_path / "core-1.img", HEAD, [core.raw()])
    refitting.without_signal(tmp_path / "core-1.img", 18)
    _, (left,) = wire.read(tmp_path / "core-1.img")
    assert Message(left).message(3).blobs(10) == (queue(10),)
    assert Message(left).message(5).blobs(9) == (b"",)
    assert Message(left).message(3).number(1) == 1


def entry(**numbers):
    message = Message()
    for number, value in numbers.items():
        message.put(int(number[1:]), value)
    return message.raw()


@pytest.mark.parametrize("size", [2 * 4096, 2 * 4096 - 1, 4096, 0, 3 * 4096])
def test_memory_that_is_not_as_long_as_its_map_says_is_refused(tmp_path, size):
    present, absent, old = entry(_1=0, _2=1, _4=4), entry(_1=9, _2=7, _4=1), entry(_1=5, _2=1)
    wire.write(tmp_path / "pagemap-1.img", HEAD, [entry(_1=3), present, absent, old])
    (tmp_path / "pages-3.img").write_bytes(bytes(size))
    if size == 2 * 4096:
        pages.check(tmp_path)
        return
    with pytest.raises(wire.NotAnImage, match=f"pages-3.img has {size} bytes of 8192"):
        pages.check(tmp_path)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_that_writes_itself_or_none(raw):
    try:
        message = Message(raw)
    except wire.NotAnImage:
        return
    assert Message(message.raw()).fields == message.fields
