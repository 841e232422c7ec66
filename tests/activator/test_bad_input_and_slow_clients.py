"""What clients send that cannot be passed on, and clients that are slow, rude or gone."""

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kybernate.model.workload import State

Start = Callable[..., Any]
HEAD = "POST /models/llama-a/echo HTTP/1.1\r\nHost: x\r\n"


def talk(activator: Any, *parts: str | bytes) -> bytes:
    """All that is answered until the activator closes."""
    with socket.create_connection(("127.0.0.1", activator.port), timeout=60) as client:
        for part in parts:
            client.sendall(part if isinstance(part, bytes) else part.encode())
        said = b""
        while more := client.recv(65536):
            said += more
        return said


def error(answer: Any) -> str:
    return str(answer.json()["error"]["message"])


def test_an_unknown_model_is_told_with_those_there_are(house: Any, start: Start) -> None:
    house.model("llama-a", State.ACTIVE)
    house.model("qwen", State.ACTIVE, model="Qwen/Qwen3-8B")
    activator = start()
    answer = activator.ask("nobody")
    assert answer.status == 404
    assert error(answer) == "no model is called 'nobody'; there are: Qwen/Qwen3-8B, llama-a"
    assert answer.json()["error"]["code"] == "model_not_found"


def test_what_names_no_model_is_asked_for_one(house: Any, start: Start) -> None:
    import urllib3

    house.model("llama-a", State.ACTIVE)
    activator = start()
    for body, why in (
        (b"", "neither host, path"),
        (b"{", "not JSON"),
        (b'{"model": 7}', "not the name of a model"),
        (b"[]", "not the name of a model"),
    ):
        answer = urllib3.request("POST", f"{activator.url}/v1/completions", body=body)
        assert answer.status == 404
        assert why in error(answer)


def test_requests_beyond_what_may_wait_are_refused_at_once(house: Any, start: Start) -> None:
    house.model("llama-a")
    house.agent.gate.clear()
    activator = start(most_held=3)
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(activator.ask, "llama-a") for _ in range(3)]
        house.wait_for(lambda: activator.of("llama-a")["queued"] == 3, "three are held")
        refused = activator.ask("llama-a")
        assert (refused.status, refused.json()["error"]["code"]) == (429, "too_many_waiting")
        assert int(refused.headers["Retry-After"]) >= 1
        house.agent.gate.set()
        assert [one.result().status for one in held] == [200] * 3


def test_bodies_beyond_the_memory_they_may_take_are_refused(house: Any, start: Start) -> None:
    house.model("llama-a")
    house.agent.gate.clear()
    activator = start(most_held_bytes=100)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(activator.ask, "llama-a", body=b"x" * 60)
        house.wait_for(lambda: activator.of("llama-a")["queued"] == 1, "one is held")
        refused = activator.ask("llama-a", body=b"x" * 60)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        house.agent.gate.set()
        assert held.result().status == 200
    house.wait_for(lambda: activator.process.desk.memory.size == 0, "all is given back")
    assert activator.ask("llama-a", body=b"x" * 60).status == 200


def test_a_request_whose_model_does_not_come_in_time_is_told_when_to_ask_again(
    house: Any, start: Start
) -> None:
    house.model("llama-a")
    house.agent.gate.clear()
    activator = start(hold=60.0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(activator.ask, "llama-a")
        house.wait_for(lambda: activator.of("llama-a")["why"] == "its turn comes", "it waits")
        (queue,) = activator.process.queues.values()
        activator.loop.call_soon_threadsafe(lambda: queue._late(queue.held[0]))  # its time is over
        answer = asked.result()
    assert answer.status == 503
    assert error(answer) == "default/llama-a did not come within 60 s: its turn comes"
    assert answer.headers["Retry-After"] == "2"  # by its agent's estimate


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([f"{HEAD}Content-Length: 2000\r\n\r\n"], id="told by its length"),
        pytest.param(
            [f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", "600\r\n" + "x" * 1536], id="as it grows"
        ),
    ],
)
def test_a_body_too_large_is_refused_before_anybody_is_woken(
    house: Any, start: Start, sent: list[str]
) -> None:
    house.model("llama-a")
    said = talk(start(most_body=1000), *sent)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"at most 1000 bytes" in said
    assert house.agent.wishes == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param("GARBAGE\r\n\r\n", b"400", id="garbage"),
        pytest.param("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400", id="HTTP/2 by prior knowledge"),
        pytest.param(
            f"{HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400",
            id="two framings",
        ),
        pytest.param(f"{HEAD}Content-Length: 3\r\nContent-Length: 4\r\n\r\n", b"400", id="lengths"),
        pytest.param(f"{HEAD}Bad Header: x\r\n\r\n", b"400", id="a space in a name"),
        pytest.param(HEAD + "X: " + "y" * 600_000, b"431", id="a head without end"),
    ],
)  # fmt: skip
def test_what_is_not_http_is_refused(house: Any, start: Start, sent: str, status: bytes) -> None:
    key = house.model("llama-a", State.ACTIVE)
    said = talk(start(), sent)
    assert said.startswith(b"HTTP/1.1 " + status)
    assert not house.server(key).asked


def test_a_client_that_does_not_finish_its_request_is_let_go_and_wakes_nobody(
    house: Any, start: Start
) -> None:
    house.model("llama-a")
    said = talk(start(read_within=0.3), f"{HEAD}Content-Length: 10\r\n\r\nabc")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert house.agent.wishes == []


def test_a_client_that_leaves_while_its_answer_comes_is_noticed_by_the_model(
    house: Any, start: Start
) -> None:
    key = house.model("llama-a", State.ACTIVE)
    activator = start()
    client = socket.create_connection(("127.0.0.1", activator.port))
    client.sendall(b"GET /models/llama-a/wait HTTP/1.1\r\nHost: x\r\n\r\n")
    house.wait_for(lambda: {key: 1} in house.agent.reports, "its agent is told")
    client.close()
    house.wait_for(lambda: activator.view()["left"] == 1, "it is noticed")
    house.wait_for(lambda: house.agent.reports[-1] == {}, "and told")
    assert activator.ask("llama-a").status == 200


def test_a_model_that_breaks_off_is_told_as_that_and_asked_once(house: Any, start: Start) -> None:
    key = house.model("llama-a", State.ACTIVE)
    activator = start()
    answer = activator.ask("llama-a", "/break")
    assert (answer.status, answer.json()["error"]["code"]) == (502, "no_answer")
    assert house.server(key).asked["/break"] == 1


def test_too_many_clients_are_closed_and_the_others_served(house: Any, start: Start) -> None:
    house.model("llama-a", State.ACTIVE)
    activator = start(most_connections=2)
    first, second = (socket.create_connection(("127.0.0.1", activator.port)) for _ in range(2))
    with first, second:
        house.wait_for(lambda: activator.process.figures and len(activator.process.desk) == 2, "2")
        with socket.create_connection(("127.0.0.1", activator.port)) as third:
            assert third.recv(1) == b""
        first.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_pages_of_others_see_nothing(house: Any, start: Start) -> None:
    import urllib3

    house.model("llama-a", State.ACTIVE)
    activator = start()
    foreign = {"Origin": "https://evil.example"}
    assert urllib3.request("GET", f"{activator.view_url}/debug/view", headers=foreign).status == 403
    own = {"Origin": activator.view_url}
    assert urllib3.request("GET", f"{activator.view_url}/debug/view", headers=own).status == 200
    assert urllib3.request("POST", f"{activator.view_url}/debug/view", body=b"").status == 405
    listed = urllib3.request("GET", f"{activator.url}/v1/models").json()
    assert [one["id"] for one in listed["data"]] == ["llama-a"]
    assert json.dumps(listed)
