"""
What the adapter makes of an OPA that is slow, wrong or gone.

Faked: an OPA that says whatever the test tells it. Real: the adapter, the connection, in the last
tests OPA itself. The clock is ours, so the pause between two tries is not waited for.
"""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from controller.bundles import Bundle
from kybernate.clients.circuit import Circuit
from kybernate.clients.opa import PAUSE_S, OpaPolicy, Outcome
from kybernate.model.policy import PreemptionQuestion, PreemptionVerdict
from kybernate.model.verdict import Reason, Refusal
from kybernate.testing.clock import FakeClock
from testbed.opa import Opa

Build = Callable[..., Any]


class StandIn(http.server.ThreadingHTTPServer):
    """Answers every question with `status` and `body`, and counts them."""

    status = 200
    body = b"{}"
    asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def opa() -> Iterator[StandIn]:
    """The stand-in."""
    with StandIn(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def deaf() -> Iterator[str]:
    """Somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def question(a_tenant: Build, a_preemption: Build) -> PreemptionQuestion:
    """Any question."""
    asked: PreemptionQuestion = a_preemption(a_tenant("b"), a_tenant("a"))
    return asked


@pytest.mark.parametrize(
    ("status", "body", "outcome", "says"),
    [
        pytest.param(
            200, {}, Outcome.UNDEFINED, "kyb.preemption.verdict is undefined", id="undefined"
        ),
        pytest.param(
            200, {"result": {"allow": "yes"}}, Outcome.UNREADABLE, "allow: 'yes'", id="no-verdict"
        ),
        pytest.param(200, [1], Outcome.FAILED, "not an object", id="no-object"),
        pytest.param(200, None, Outcome.FAILED, "no JSON", id="no-json"),
        pytest.param(
            500,
            {"code": "internal_error", "message": "conflict"},
            Outcome.FAILED,
            "500",
            id="error",
        ),
    ],
)
def test_an_answer_that_is_no_verdict_is_a_refusal(
    opa: StandIn, question: PreemptionQuestion, status: int, body: Any, outcome: Outcome, says: str
) -> None:
    opa.status = status
    opa.body = b"certainly" if body is None else orjson.dumps(body)
    seen: list[tuple[str, Outcome]] = []
    policy = OpaPolicy(opa.url, observe=lambda package, how, _: seen.append((package, how)))
    answer = policy.preemption(question)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.POLICY_UNAVAILABLE
    assert says in answer.detail
    assert seen == [("preemption", outcome)]


def test_an_opa_that_answers_with_an_error_is_asked_again_at_once(
    opa: StandIn, question: PreemptionQuestion
) -> None:
    opa.status = 500
    policy = OpaPolicy(opa.url, monotonic=FakeClock().monotonic)
    policy.preemption(question)
    policy.preemption(question)
    assert opa.asked == 2


def test_every_fault_of_an_answer_is_named(opa: StandIn, question: PreemptionQuestion) -> None:
    opa.body = orjson.dumps({"result": {"allow": 1, "retry_seconds": -1, "order": "last"}})
    answer = OpaPolicy(opa.url).preemption(question)
    assert isinstance(answer, Refusal)
    for path in ("allow", "reason", "retry_seconds", "order"):
        assert f"{path}: " in answer.detail


def test_a_verdict_of_bundles_without_revision_still_counts(
    opa: StandIn, question: PreemptionQuestion
) -> None:
    opa.body = orjson.dumps({"result": {"allow": False, "reason": "Mine"}})
    answer = OpaPolicy(opa.url).preemption(question)
    assert isinstance(answer, PreemptionVerdict)
    assert (answer.reason, answer.revision) == ("Mine", "")


def test_an_opa_that_never_answers_is_waited_for_once(
    deaf: str, question: PreemptionQuestion
) -> None:
    clock = FakeClock()
    seen: list[Outcome] = []
    policy = OpaPolicy(
        deaf,
        timeout_s=0.05,
        observe=lambda _, outcome, __: seen.append(outcome),
        monotonic=clock.monotonic,
    )
    answers = [policy.preemption(question) for _ in range(50)]
    details = [answer.detail for answer in answers if isinstance(answer, Refusal)]
    assert "does not answer" in details[0]
    assert set(details[1:]) == {f"OPA at {deaf} is away"}
    assert seen == [Outcome.AWAY] * 50


def test_while_it_is_away_one_caller_a_pause_is_let_through() -> None:
    clock = FakeClock()
    circuit = Circuit(PAUSE_S, clock.monotonic)
    circuit.open()
    assert not circuit.admits()
    clock.advance(PAUSE_S)
    assert [circuit.admits() for _ in range(3)] == [True, False, False]
    circuit.close()
    assert all(circuit.admits() for _ in range(3))


@pytest.mark.parametrize("url", ["127.0.0.1:8181", "ftp://127.0.0.1:1", "http://127.0.0.1", ""])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="not the address of an OPA server"):
        OpaPolicy(url)


def test_a_proxy_of_the_environment_is_never_asked(
    opa: StandIn, question: PreemptionQuestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    opa.body = orjson.dumps({"result": {"allow": False, "reason": "Mine"}})
    assert isinstance(OpaPolicy(opa.url).preemption(question), PreemptionVerdict)


def test_a_stopped_opa_refuses(
    bundle: Bundle, tmp_path: Path, question: PreemptionQuestion
) -> None:
    packed = tmp_path / "kyb.tar.gz"
    packed.write_bytes(bundle.content)
    clock = FakeClock()
    with Opa.start(tmp_path / "one", bundle=packed) as server:
        policy = OpaPolicy(server.url, timeout_s=10.0, monotonic=clock.monotonic)
        assert isinstance(policy.preemption(question), PreemptionVerdict)
    refused = policy.preemption(question)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.POLICY_UNAVAILABLE
    assert policy.revision() is None


@pytest.mark.controlplane
def test_an_opa_without_policies_is_undefined(tmp_path: Path, question: PreemptionQuestion) -> None:
    with Opa.start(tmp_path / "empty") as server:
        policy = OpaPolicy(server.url, timeout_s=10.0)
        answer = policy.preemption(question)
        assert policy.revision() is None
    assert isinstance(answer, Refusal)
    assert "undefined" in answer.detail
