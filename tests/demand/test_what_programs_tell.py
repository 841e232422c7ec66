"""
A workload's own program as a signal: requests in its server, steps of its training.

Real: the program (a web server of this process), HTTP, the parser, the kernel's sockets. Faked:
time, pods, policy's data; the namespace is ours.
"""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api.errors import Malformed
from kybernate.api.policy import read_engines
from kybernate.model.demand import DOUBT, SILENT
from kybernate.model.engines import UNKNOWN, Engines
from kybernate.model.ids import NO_REVISION, PodUid, ResourceName, WorkloadKey
from kybernate.model.workload import Endpoint, Wishes, Workload, WorkloadClass
from kybernate.testing.clock import FakeClock
from nodeagent.demand.engine import Engine, NotTold, numbers
from nodeagent.demand.gathering import Gathered
from nodeagent.demand.scraping import Endpoints, NotKnown, Pages
from nodeagent.disk.records import Mark
from nodeagent.lives.life import Life, Lives
from nodeagent.probing import netns

ENGINES = Engines(
    requests=frozenset({"vllm:num_requests_running", "vllm:num_requests_waiting"}),
    steps=frozenset({"training_steps_total"}),
)
VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b}"} %s
vllm:num_requests_running{engine="1",model_name="a"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 2
vllm:num_requests_waiting_by_reason{reason="x"} 70
"""


class Program:
    """What it answers, and who asked."""

    def __init__(self) -> None:
        self.text, self.status = "", 200
        self.peers: list[str] = []
        program = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                program.peers.append(self.client_address[0])
                body = program.text.encode()
                self.send_response(program.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.port = self.server.server_address[1]


class Ours:
    """Sockets in our own namespace."""

    def socket(self, process: Any, family: int, kind: int, protocol: int = 0) -> Any:
        import socket

        return socket.socket(family, kind, protocol)

    def address(self, process: Any) -> str:
        return "127.0.0.1"


@pytest.fixture
def program() -> Iterator[Program]:
    one = Program()
    threading.Thread(target=one.server.serve_forever, args=(0.01,), daemon=True).start()
    yield one
    one.server.shutdown()
    one.server.server_close()


def pod(life: Life, metrics: Endpoint | None) -> Workload:
    return Workload(
        key=life.key,
        uid=life.record.uid,
        resource=ResourceName("kyb.ai/gpu-1x-seat"),
        seat_container="model",
        wishes=Wishes(metrics=metrics),
    )


class Rig:
    """The signal of one life, whose pod says where it tells."""

    def __init__(self, life: Life, metrics: Endpoint | None, engines: Engines = ENGINES) -> None:
        self.life, self.clock = life, FakeClock()
        self.pods = {life.key: pod(life, metrics)}
        self.synced = True
        self.endpoints = Endpoints(self.pods.get, lambda: self.synced, lambda: engines)
        self.engine = Engine(Pages(Ours()).text, self.endpoints, lambda: engines, self.clock)
        self.lives = Lives()
        self.lives.add(life)
        self.gathered = Gathered(self.engine, self.lives, self.clock)

    def read(self) -> Any:
        self.gathered.gather()
        return self.gathered.read(self.life)


def test_requests_of_all_engines_running_or_waiting_are_added_up() -> None:
    assert numbers(VLLM % "3.0", ENGINES).requests == 6
    assert numbers(VLLM % "3.0", ENGINES).steps is None
    assert numbers("training_steps_total 12\n", ENGINES).steps == 12
    assert numbers("", ENGINES).requests is None


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf", "three"])
def test_what_is_no_count_is_not_read_as_one(value: str) -> None:
    with pytest.raises(ValueError, match=r"count|float"):
        numbers(VLLM % value, ENGINES)


@given(st.text(max_size=300))
def test_any_text_is_numbers_or_an_error(text: str) -> None:
    try:
        told = numbers(f"{text}\nvllm:num_requests_running {text}\n", ENGINES)
    except ValueError:
        return
    assert told.requests is None or told.requests >= 0


def test_a_server_with_requests_is_busy_and_one_without_idle_from_then_on(
    a_life: Callable[..., Life], program: Program
) -> None:
    rig = Rig(a_life("a"), Endpoint(program.port))
    program.text = VLLM % "0"
    asked = rig.read()
    assert (asked.busy, asked.in_flight, asked.why) == (True, 3, "its server has 3 requests")
    program.text = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
    rig.clock.advance(4.0)
    assert rig.read().idle_for == pytest.approx(4.0)
    assert rig.read().in_flight == 0
    rig.clock.advance(2.0)
    assert rig.gathered.read(rig.life).idle_for == pytest.approx(6.0), "its word grows older"


def test_it_is_asked_from_an_address_that_is_known_as_ours(
    a_life: Callable[..., Life], program: Program
) -> None:
    program.text = VLLM % "0"
    Rig(a_life("a"), Endpoint(program.port)).read()
    assert program.peers == [netns.AGENTS_OWN]


def test_what_should_tell_and_does_not_is_in_doubt_until_it_does(
    a_life: Callable[..., Life], program: Program
) -> None:
    rig = Rig(a_life("a"), Endpoint(program.port))
    assert rig.gathered.read(rig.life) == DOUBT, "before it was ever asked"
    with pytest.raises(NotTold):
        rig.read()  # no such metric
    program.status = 500
    with pytest.raises(OSError, match="status 500"):
        rig.read()
    program.status, program.text = 200, VLLM % "1"
    assert rig.read().busy
    rig.clock.advance(60.0)
    assert rig.gathered.read(rig.life) == DOUBT, "an old word is none"


def test_who_says_nothing_is_not_asked_unless_policy_says_where(
    a_life: Callable[..., Life], program: Program
) -> None:
    program.text = VLLM % "1"
    life = a_life("a")
    assert Rig(life, None).read() == SILENT
    assert program.peers == []
    usual = Engines(requests=ENGINES.requests, at={WorkloadClass.INFERENCE: Endpoint(program.port)})
    assert Rig(life, None, usual).read().busy


def test_a_pod_nobody_has_told_of_yet_is_in_doubt(a_life: Callable[..., Life]) -> None:
    rig = Rig(a_life("a"), None)
    rig.pods, rig.synced = {}, False
    rig.endpoints = Endpoints(rig.pods.get, lambda: rig.synced, lambda: UNKNOWN)
    rig.engine._endpoints = rig.endpoints
    with pytest.raises(NotKnown):
        rig.read()
    rig.synced = True
    assert rig.read() == SILENT


def test_who_is_parked_is_not_asked(a_life: Callable[..., Life], program: Program) -> None:
    life = a_life("a", mark=Mark.PARKED)
    assert Rig(life, Endpoint(program.port)).read() == SILENT
    assert program.peers == []


def test_a_training_program_is_busy_while_its_steps_come_at_their_rate(
    a_life: Callable[..., Life], program: Program
) -> None:
    rig = Rig(a_life("a", terms={"workload_class": WorkloadClass.TRAINING}), Endpoint(program.port))

    def after(seconds: float, steps: int) -> Any:
        rig.clock.advance(seconds)
        program.text = f"training_steps_total {steps}\n"
        return rig.read()

    assert after(0.0, 100).doubt, "whether it goes on is not known yet"
    told = after(10.0, 105)
    assert (told.busy, told.why) == (True, "it trains, 0.5 steps a second")
    assert after(5.0, 105).busy, "one step may take its time"
    late = after(10.0, 105)
    assert not late.busy
    assert late.idle_for == pytest.approx(15.0)
    assert after(1.0, 3).busy, "one that began anew goes on"


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ({"requests": ["no name"], "steps": []}, r"requests\[0\]"),
        ({"requests": [], "steps": [7]}, r"steps\[0\]"),
        ({"requests": [], "steps": [], "at": {"inference": "metrics"}}, "at.inference"),
        ({"requests": [], "steps": [], "at": {"batch": 8000}}, "at.batch"),
    ],
)
def test_data_that_cannot_be_is_refused_by_its_path(told: dict[str, Any], path: str) -> None:
    with pytest.raises(Malformed, match=path):
        read_engines(told, NO_REVISION)


def test_another_pod_of_the_name_is_another_one(a_life: Callable[..., Life]) -> None:
    life = a_life("a")
    other = Workload(
        key=WorkloadKey("default", "a"),
        uid=PodUid("another"),
        resource=ResourceName("kyb.ai/gpu-1x-seat"),
        seat_container="model",
        wishes=Wishes(metrics=Endpoint(1)),
    )
    endpoints = Endpoints(lambda _: other, lambda: True, lambda: ENGINES)
    assert endpoints.of(life) is None
