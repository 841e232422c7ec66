"""Neither side believes the other: packets of any kind end in an answer, an error, or a hang-up."""

import os
import random
import socket
import struct
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from kybernate.testing.agentnode import wait_for
from nodeagent.mechanisms import NotPossible, guestwire
from nodeagent.mechanisms.guests import Guests
from nodeagent.mechanisms.guestwire import Malformed, Verb
from testbed.assets import native
from testbed.assets.compiler import BuildFailed

MIB = 2**20
PATIENCE_S = 60.0
_ROOT = Path(__file__).parents[2]
_CHECKED = (
    *("-std=c11", "-D_GNU_SOURCE", "-O0", "-g"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)


@given(some.binary(max_size=600))
def test_any_bytes_are_an_answer_or_malformed(packet):
    with suppress(Malformed):
        guestwire.answer(packet)


@given(verb=some.integers(0, 12), count=some.integers(0, 2**32 - 1), rest=some.binary(max_size=300))
def test_an_answer_s_segments_are_as_many_as_it_says(verb, count, rest):
    head = struct.pack("<Ii2IQ2I16s64s", verb, 0, count, count, 1, 1, 1, b"", b"why")
    try:
        answer = guestwire.answer(head + rest)
    except Malformed:
        return
    if answer.verb in (Verb.LIST, Verb.EXPORT, Verb.BACK):
        assert len(answer.segments) == count


def test_a_guest_that_is_newer_is_not_believed():
    with pytest.raises(Malformed, match="protocol 2"):
        guestwire.answer(struct.pack("<Ii2IQ2I16s64s", 1, 0, 0, 0, 0, 0, 2, b"", b""))


def hello(path, protocol):
    """This very process, as a guest of that protocol."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.connect(str(path))
    one.send(struct.pack("<Ii2IQ2I16s64s", Verb.HELLO, 0, 0, 0, 0, 0, protocol, b"", b"old"))
    return one


def test_a_guest_loaded_before_an_upgrade_of_another_protocol_is_refused_in_words(tmp_path):
    us = frozenset({os.getpid()})
    with closing(Guests(tmp_path / "g.sock")) as guests:
        refused = pytest.raises(NotPossible, match=r"protocol 0; 1 is spoken.*started anew")
        with hello(tmp_path / "g.sock", 0), refused:
            guests.await_all(us, PATIENCE_S)
        with hello(tmp_path / "g.sock", guestwire.PROTOCOL):
            wait_for(lambda: guests.of(os.getpid()), "it is understood")
            assert guests.await_all(us, PATIENCE_S)


@pytest.fixture(scope="module")
def checked_guest(libraries):
    """A program with the guest inside, every access checked; the plain one cannot be."""
    folder = _ROOT / "native" / "guest"
    sources = [one for one in folder.iterdir() if one.name != "names.c"]
    sources = sorted(one for one in sources if one.suffix in (".c", ".h", ".def"))
    own = Path(__file__).with_name("hostile.c")
    link = (f"-I{folder}", f"{libraries[1]}/libcuda.so.1", f"-Wl,-rpath,{libraries[1]}")
    try:
        return native.compiled("hostile", [*sources, own], (*_CHECKED, *link))
    except BuildFailed as problem:
        if "sanitize" in str(problem) or "asan" in str(problem):
            pytest.skip("this compiler has no address sanitizer")
        raise


def _packets(count, seed):
    chance = random.Random(seed)
    card = bytes.fromhex("face0000111122223333444444444444")
    for _ in range(count):
        numbers = (chance.choice((0, 1, 2, 7, 128, 2**31, 2**32 - 1)) for _ in range(2))
        verb = chance.randrange(0, 11)
        packet = struct.pack("<4I", verb, *numbers, chance.randrange(0, 20)) + (
            card if chance.random() < 0.8 else chance.randbytes(16)
        )
        yield chance.choice((packet, packet, packet, packet[: chance.randrange(1, 32)],
                             chance.randbytes(chance.randrange(1, 300))))  # fmt: skip


def test_a_hostile_agent_never_makes_the_guest_read_or_write_where_it_should_not(
    checked_guest, tmp_path
):
    path = tmp_path / "g.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(PATIENCE_S)
        environment = {**os.environ, "KYB_GUEST_SOCKET": str(path)}
        with subprocess.Popen(
            [str(checked_guest)], env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as guest:
            one, _ = listener.accept()
            with one:
                one.settimeout(PATIENCE_S)
                assert _heard(one) == Verb.HELLO
                for packet in _packets(3000, seed=7):
                    fds = [listener.fileno()] * (packet[0] % 3)
                    socket.send_fds(one, [packet], fds)
                    _heard(one)
            _, errors = guest.communicate(b"", timeout=PATIENCE_S)
    assert guest.returncode == 0, errors.decode()


def _heard(one):
    packet, descriptors, _, _ = socket.recv_fds(one, 65536, 128)
    for descriptor in descriptors:
        os.close(descriptor)
    return struct.unpack_from("<I", packet)[0]
