"""
Real: the socket, the codec both ends use, threads. Faked: what the agent knows (containers, books).
Observed: replies as bytes, what reached the containers.
"""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api.errors import Malformed
from kybernate.clients import runtimecalls
from kybernate.clients.errors import Refused
from kybernate.clients.runtimecalls import (
    LONGEST,
    Call,
    NotHeard,
    NotTaken,
    Op,
    RuntimeCaller,
    decode,
    encode,
)
from kybernate.model.ids import PodUid, WorkloadKey
from kybernate.model.workload import State
from kybernate.testing.agentnode import wait_for
from nodeagent.api.runtime_socket import RuntimeSocket

KEY = WorkloadKey("default", "one")
HELD = Call(
    op=Op.HELD,
    pod=KEY,
    uid=PodUid("u1"),
    container="model",
    container_id="c1",
    pid=os.getpid(),
    fifo=Path("/run/exec.fifo"),
)
ASKED = Call(op=Op.STATE, pod=KEY, uid=PodUid("u1"), container_id="c1")


class Containers:
    """Keeps what it is told; `trouble` is raised when it is told."""

    def __init__(self):
        self.made, self.ended, self.trouble = [], [], None
        self.waiting = set()

    def created(self, created):
        if self.trouble:
            raise self.trouble
        self.made.append(created)

    def announced(self, key, uid):
        return (key, uid) in self.waiting

    def exited(self, key, container_id):
        self.ended.append((key, container_id))


class Prober:
    def answer(self, call):
        return {"ok": "answered", "passed": "yes", "say": f"{call.kind} of {call.spec}"}


class Wakes:
    """Containers are made cold; what is told is kept."""

    def __init__(self):
        self.told = []

    def arriving(self, call):
        return {"ok": "heard"}

    def creating(self, call):
        self.told.append((call.op, call.container_id))
        return {"ok": "cold"}

    def held(self, call):
        self.told.append((call.op, call.container_id))
        raise Refused("nobody here prepared that")

    def made_cold(self, call):
        self.told.append((call.op, call.container_id))

    def ended(self, call):
        self.told.append((call.op, call.failed))


@pytest.fixture
def containers():
    return Containers()


@pytest.fixture
def books():
    return SimpleNamespace(tenancies={})


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(prefix="kyb-") as folder:
        yield Path(folder) / "r.sock"


@pytest.fixture
def listening(containers, books, path):
    running = RuntimeSocket(containers, SimpleNamespace(books=books), Prober(), Wakes())
    running.start(path)
    yield running
    running.stop()


def said(path, line):
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10.0)
        asking.connect(str(path))
        asking.sendall(line)
        asking.shutdown(socket.SHUT_WR)
        return orjson.loads(asking.makefile("rb").read() or b"{}")


def test_a_held_container_reaches_the_agent_with_its_process_and_fifo(listening, containers, path):
    RuntimeCaller(path).tell(HELD)
    (made,) = containers.made
    assert (made.key, made.uid, made.container_id, made.pid) == (KEY, "u1", "c1", os.getpid())
    assert made.exec_fifo == Path("/run/exec.fifo")


def test_a_process_that_is_gone_by_now_is_passed_over(listening, containers, path):
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    again = Call(**{**_fields(HELD), "pid": gone.pid})
    RuntimeCaller(path).tell(again)
    RuntimeCaller(path).tell(Call(**{**_fields(HELD), "started": 1}))  # the number came again
    assert containers.made == []


def test_the_end_of_a_container_reaches_the_agent(listening, containers, path):
    RuntimeCaller(path).tell(Call(op=Op.ENDED, pod=KEY, uid=PodUid("u1"), container_id="c1"))
    assert containers.ended == [(KEY, "c1")]


@pytest.mark.parametrize(
    ("state", "held"),
    [
        pytest.param(State.WAITING, True, id="waiting"),
        pytest.param(State.PARKED, True, id="parked"),
        pytest.param(State.ACTIVATING, True, id="on-its-way-in"),
        pytest.param(State.ACTIVE, False, id="active"),
    ],
)
def test_whoever_has_no_gpu_is_held(listening, books, path, state, held):
    books.tenancies[KEY] = SimpleNamespace(uid="u1", state=state)
    standing = RuntimeCaller(path).standing(ASKED)
    assert (standing.held, standing.state) == (held, state.value)
    assert bool(standing.say) == held


def test_a_held_container_whose_pod_is_not_known_yet_is_held_all_the_same(
    listening, containers, path
):
    containers.waiting.add((KEY, "u1"))
    standing = RuntimeCaller(path).standing(ASKED)
    assert (standing.held, standing.state) == (True, State.WAITING.value)


def test_another_pod_of_the_same_name_is_not_known(listening, books, path):
    books.tenancies[KEY] = SimpleNamespace(uid="before", state=State.PARKED)
    standing = RuntimeCaller(path).standing(ASKED)
    assert (standing.held, standing.state) == (False, State.ABSENT.value)


def test_what_cannot_be_written_down_was_not_heard(listening, containers, path):
    containers.trouble = OSError("no room")
    with pytest.raises(NotHeard, match="no room"):
        RuntimeCaller(path).tell(HELD)


def test_what_the_agent_cannot_take_is_refused_in_words(listening, containers, path):
    containers.trouble = ValueError("not a container id")
    with pytest.raises(NotTaken, match="not a container id"):
        RuntimeCaller(path).tell(HELD)


def test_nobody_there_was_not_heard(path):
    with pytest.raises(NotHeard):
        RuntimeCaller(path).tell(HELD)


def test_what_was_put_down_while_nobody_listened_is_taken_up(containers, books, path):
    untold = path.with_name(runtimecalls.UNTOLD)
    untold.mkdir()
    (untold / "c1.json").write_bytes(encode(HELD))
    (untold / "c2.json").write_bytes(b"torn")
    (untold / ".c3.draft").write_bytes(b"half")
    running = RuntimeSocket(containers, SimpleNamespace(books=books), Prober(), Wakes())
    running.start(path)
    try:
        wait_for(lambda: [one.name for one in untold.iterdir()] == [".c3.draft"], "taken up")
    finally:
        running.stop()
    assert [made.container_id for made in containers.made] == ["c1"]


def test_a_probe_goes_to_who_answers_probes(listening, path):
    spec = '{"tcpSocket":{"port":80}}'
    probe = Call(
        op=Op.PROBE, pod=KEY, uid=PodUid("u1"), container_id="c1", kind="liveness", spec=spec
    )
    assert decode(encode(probe)) == probe
    assert said(path, encode(probe))["say"] == f"liveness of {spec}"


def test_what_cannot_be_taken_up_yet_stays_put_down(containers, books, path):
    untold = path.with_name(runtimecalls.UNTOLD)
    untold.mkdir()
    (untold / "c1.json").write_bytes(encode(HELD))
    containers.trouble = OSError("no room")
    running = RuntimeSocket(containers, SimpleNamespace(books=books), Prober(), Wakes())
    running.start(path)
    try:
        said(path, encode(ASKED))
        assert (untold / "c1.json").exists()
        containers.trouble = None
        wait_for(lambda: not (untold / "c1.json").exists(), "taken up")
    finally:
        running.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can speak as somebody else")
def test_others_than_root_and_the_agents_own_user_are_turned_away(listening, path):
    for open_now in (path, path.parent):
        open_now.chmod(0o777)  # as if the mode alone were what protects it
    assert _as_nobody(path, encode(ASKED)) == b""


def test_the_socket_is_for_its_owner_alone(listening, path):
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("line", "named"),
    [
        pytest.param(b"torn\n", "request", id="no-json"),
        pytest.param(b"[]\n", "request", id="no-object"),
        pytest.param(b'{"op":"dance"}\n', "op", id="no-such-request"),
        pytest.param(encode(HELD).replace(b'"c1"', b'"../c1"'), "id", id="an-id-that-is-a-path"),
        pytest.param(encode(HELD).replace(b'"/run', b'"run'), "fifo", id="a-relative-path"),
        pytest.param(encode(HELD).replace(b'"pid":"', b'"pid":"-'), "pid", id="no-process"),
    ],
)
def test_a_line_that_cannot_be_read_is_answered_with_what_is_wrong(listening, path, line, named):
    answer = said(path, line)
    assert named in answer["error"]
    assert "again" not in answer


def test_a_line_without_an_end_is_refused(listening, path):
    assert "at most" in said(path, b"x" * (LONGEST + 2))["error"]


def test_a_folder_of_the_untold_that_is_none_ends_no_listening(containers, books, path):
    path.with_name(runtimecalls.UNTOLD).write_text("no folder")
    running = RuntimeSocket(containers, SimpleNamespace(books=books), Prober(), Wakes())
    running.start(path)
    try:
        for _ in range(3):
            assert said(path, encode(ASKED))["ok"] == "known"
    finally:
        running.stop()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_malformed(line):
    try:
        decode(line)
    except Malformed:
        return


@given(
    st.sampled_from(Op),
    st.from_regex(r"[a-z][a-z0-9.-]{0,60}", fullmatch=True),
    st.integers(1, 2**31),
)
def test_what_one_end_says_the_other_understands(op, name, pid):
    held = op is Op.HELD
    call = Call(
        op=op,
        pod=WorkloadKey(name, name),
        uid=PodUid(name),
        container_id=name,
        container=name if op in (Op.HELD, Op.CREATING) else "",
        pid=pid if held else 0,
        started=pid if held else 0,
        fifo=Path("/a b/ü") if held else None,
        kind=name if op is Op.PROBE else "",
    )
    assert decode(encode(call)) == call


def _fields(call):
    return {name: getattr(call, name) for name in call.__dataclass_fields__}


def _as_nobody(path, line):
    code = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(10)\n"
        "s.connect(sys.argv[1])\n"
        "try:\n s.sendall(sys.argv[2].encode()); sys.stdout.write(s.makefile().read())\n"
        "except (BrokenPipeError, ConnectionResetError): pass\n"
    )
    argv = [sys.executable, "-S", "-c", code, str(path), line.decode()]
    return subprocess.run(argv, capture_output=True, check=True, timeout=30).stdout
