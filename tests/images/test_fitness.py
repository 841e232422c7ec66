"""What stands in the way of an image. Real: processes of this machine that hold such things."""

import os
import signal
import subprocess
import sys

import pytest

from nodeagent.images import descriptors, fitness
from nodeagent.images.port import Unfit, Unfitness

HOLD = "; print('ready', flush=True); import sys; sys.stdin.read()"
CALL = "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); "
KINDS = {
    "io-uring": (
        CALL + "p = ctypes.create_string_buffer(120); f = c.syscall(425, 4, p); assert f >= 0",
        [Unfitness.IO_URING],
    ),
    "userfaultfd": (CALL + "f = c.syscall(323, 0); assert f >= 0", [Unfitness.USERFAULTFD]),
    "bpf-map": (
        CALL + "import struct; a = struct.pack('IIII', 2, 4, 4, 1) + bytes(112); "
        "f = c.syscall(321, 0, a, len(a)); assert f >= 0",
        [Unfitness.KERNEL_OBJECT],
    ),
    "system-v-memory": (
        CALL + "i = c.shmget(0, 4096, 0o1600); c.shmat.restype = ctypes.c_void_p; "
        "a = c.shmat(i, None, 0); c.shmctl(i, 0, None); assert i >= 0",
        [Unfitness.SYSV_MEMORY],
    ),
    "crypto-socket": (
        "import socket; s = socket.socket(38, socket.SOCK_SEQPACKET, 0)",
        [Unfitness.SOCKET],
    ),
    "vsock": ("import socket; s = socket.socket(40, socket.SOCK_STREAM)", [Unfitness.SOCKET]),
    "device": ("f = open('/dev/kmsg')", [Unfitness.DEVICE]),
    "deleted-file-that-is-too-large": (
        "import tempfile; f = tempfile.TemporaryFile(); f.truncate(2**30 + 1)",
        [Unfitness.DELETED_FILE],
    ),
    "user-namespace-of-a-child": (
        "import subprocess as s; p = s.Popen(['unshare', '--user', 'sh', '-c', 'echo; sleep 60'], "
        "stdout=s.PIPE); assert p.stdout.readline()",
        [Unfitness.NAMESPACE],
    ),
    "projected-file": (
        "import tempfile, pathlib; d = pathlib.Path(tempfile.mkdtemp()); "
        "v = d / '..2026_11_22_10_00_00.123456789'; v.mkdir(); (v / 'token').touch(); "
        "f = open(v / 'token'); (v / 'token').unlink(); v.rmdir(); d.rmdir()",
        [Unfitness.PROJECTED_FILE],
    ),
    "stopped-child": (
        "import subprocess as s, os, signal; p = s.Popen(['sleep', '60']); "
        "os.kill(p.pid, signal.SIGSTOP); os.waitpid(p.pid, os.WUNTRACED)",
        [Unfitness.STOPPED],
    ),
    "all-that-is-fine": (
        "import os, socket, select, tempfile, threading, subprocess; "
        "a = [select.epoll(), os.eventfd(0), os.memfd_create('m'), os.pipe(), socket.socketpair()];"
        "b = [socket.socket(f, t) for f in (2, 10) for t in (1, 2)]; os.openpty(); "
        "c = tempfile.TemporaryFile(); c.truncate(2**20); d = open('/dev/urandom', 'rb'); "
        "e = subprocess.Popen(['sleep', '60']); f = socket.socket(16, 3, 0); "
        "g = socket.create_server(('127.0.0.1', 0)); h = socket.create_connection(g.getsockname());"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
        [],
    ),
}


@pytest.fixture
def run():
    """`run(code)`: a process that has executed it; ends with the test."""
    made = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code + HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        made.append(process)
        if process.stdout.readline() != b"ready\n":
            last = process.stderr.read().decode().strip().rpartition("\n")[2]
            pytest.skip(f"not on this machine: {last}")
        return process.pid

    yield start
    for process in made:
        os.killpg(process.pid, signal.SIGKILL)
    for process in reversed(made):  # one that is traced ends for us when its tracer has
        process.communicate()


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_image_cannot_hold_is_found_while_it_runs(run, kind):
    code, expected = KINDS[kind]
    pid = run(code)
    found = fitness.of_tree(pid)
    assert sorted({one.reason for one in found}) == expected
    assert all(one.command for one in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("able", [True, False])
def test_another_users_process_is_found_where_the_agent_may_not_look_at_it(run, monkeypatch, able):
    monkeypatch.setattr(fitness, "may_look_at_others", lambda: able)
    pid = run("import os; os.setresuid(12345, 12345, 12345)")
    found = [(one.reason, one.detail) for one in fitness.of_tree(pid)]
    assert found == ([] if able else [(Unfitness.OTHER_USER, "user 12345")])


def test_one_that_a_debugger_holds_is_found(run):
    held = run("import os")
    seize = "import ctypes; c = ctypes.CDLL(None); assert c.ptrace(0x4206, {}, None, None) == 0"
    by = run(seize.format(held))
    (found,) = fitness.of_tree(held)
    assert (found.reason, found.detail) == (Unfitness.TRACED, f"by process {by}")


def test_a_socket_to_another_process_is_found_and_one_among_themselves_is_not(run, tmp_path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        code = "import socket; a = socket.socketpair(); s = socket.socket(1); "
        pid = run(code + f"s.connect({str(tmp_path / 's')!r})")
        assert list(descriptors.outside([pid])) == [(pid, os.getpid())]
        assert list(descriptors.outside([pid, os.getpid()])) == []


def test_a_process_that_has_ended_is_no_matter(run):
    assert fitness.of_tree(2**22 + 1) == ()
    assert list(descriptors.outside([2**22 + 1])) == []


def test_it_reads_well():
    unfit = Unfit(pid=7, command="python3", reason=Unfitness.DEVICE, detail="/dev/kvm")
    assert str(unfit) == "python3 (7): Device: /dev/kvm"
    assert str(Unfit(pid=7, command="x", reason=Unfitness.IO_URING)) == "x (7): IoUring"
