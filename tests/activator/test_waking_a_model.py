"""A request for a model that sleeps: held, its model is brought in, answered."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from kybernate.model.verdict import Reason
from kybernate.model.workload import State

Start = Callable[..., Any]


def test_a_request_for_a_parked_model_is_answered_once_its_agent_brought_it_in(
    house: Any, start: Start
) -> None:
    key = house.model("llama-a")
    activator = start()
    answer = activator.ask("llama-a", body=b"x" * 70_000)
    assert answer.status == 200
    assert answer.json() == {"model": "llama-a", "path": "/echo", "size": 70_000}
    assert answer.headers["X-Kyb-Model"] == "default/llama-a"
    assert answer.headers["X-Kyb-Tier"] == "ram"
    assert house.agent.wishes == [key]

    again = activator.ask("llama-a")
    assert (again.headers["X-Kyb-Tier"], again.headers["X-Kyb-Waited"]) == ("vram", "0.000")
    assert house.agent.wishes == [key]


def test_many_requests_wake_a_model_once_and_are_answered_in_their_order(
    house: Any, start: Start
) -> None:
    key = house.model("llama-a")
    house.agent.gate.clear()
    activator = start()
    with socket.create_connection(("127.0.0.1", activator.port)) as client:
        for number in range(10):  # one client, one after the other without waiting for answers
            head = f"POST /models/llama-a/echo HTTP/1.1\r\nHost: x\r\nX-Number: {number}\r\n"
            client.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
        with ThreadPoolExecutor(20) as pool:
            others = [pool.submit(activator.ask, "llama-a") for _ in range(20)]
            house.wait_for(lambda: activator.of("llama-a")["queued"] == 21, "all are held")
            house.agent.gate.set()
            assert [one.result().status for one in others] == [200] * 20
        told = b""
        while told.count(b'"model"') < 10:
            told += client.recv(65536)
    assert house.agent.wishes == [key]
    numbers = [number for number in house.server(key).order if number]
    assert numbers == [str(number) for number in range(10)]


def test_nobody_is_parked_under_a_request_because_agents_are_told_of_it(
    house: Any, start: Start
) -> None:
    key = house.model("llama-a", State.ACTIVE)
    activator = start()
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(activator.ask, "llama-a", "/wait")
        house.wait_for(lambda: {key: 1} in house.agent.reports, "the agent hears of it")
        house.server(key).gate.set()
        assert request.result().status == 200
    house.wait_for(lambda: house.agent.reports[-1] == {}, "the agent hears of its end")


def test_a_request_counts_at_the_pod_it_is_at_so_that_no_other_is_woken_for_it(
    house: Any, start: Start
) -> None:
    house.model("llama-a")
    active = house.pod("llama-a", State.ACTIVE, suffix="2")
    activator = start()
    with ThreadPoolExecutor(2) as pool:
        requests = [pool.submit(activator.ask, "llama-a", "/wait") for _ in range(2)]
        house.wait_for(lambda: house.server(active).asked["/wait"] == 2, "both are there")
        house.wait_for(lambda: {active: 2} in house.agent.reports, "the agent hears of both")
        house.server(active).gate.set()
        assert {one.result().status for one in requests} == {200}
    assert house.agent.wishes == []


def test_a_model_parked_under_a_request_is_brought_back(house: Any, start: Start) -> None:
    key = house.model("llama-a", State.ACTIVE)
    activator = start()
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(activator.ask, "llama-a", "/wait")
        house.wait_for(lambda: house.server(key).asked["/wait"], "it is asked")
        house.agent.tell(key, f"uid-{key.name}", State.PARKED)  # a person did, say
        house.wait_for(lambda: house.agent.wishes == [key], "it is wanted again")
        house.server(key).gate.set()
        assert request.result().status == 200


def test_a_model_whose_agent_cannot_bring_it_in_is_told_with_the_reason(
    house: Any, start: Start
) -> None:
    house.model("llama-a")
    said = "somebody asked that the workload stays parked"
    house.agent.bring_in = lambda _: house.refused(Reason.WANTED_PARKED.name, said)
    answer = start().ask("llama-a")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert said in answer.json()["error"]["message"]


def test_when_a_resume_fails_the_deployments_next_pod_serves(house: Any, start: Start) -> None:
    key = house.model("llama-a", scale_to_zero="checkpoint")
    activator = start()

    def fails(_: object) -> Any:
        house.agent.tell(key, f"uid-{key.name}", State.QUARANTINED)
        return house.refused(Reason.QUARANTINED.name, "its contents are damaged")

    house.agent.bring_in = fails
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(activator.ask, "llama-a")
        house.wait_for(lambda: "brought back" in activator.of("llama-a")["why"], "it says so")
        assert "cold start" in activator.of("llama-a")["why"]  # for there is no checkpoint
        house.remove(key)  # as the controller has it
        house.pod("llama-a", State.ACTIVE, suffix="2")
        assert request.result().status == 200


def test_a_model_that_has_its_gpu_and_never_listens_is_told_as_that(
    house: Any, start: Start
) -> None:
    house.model("llama-a", State.ACTIVE, listens=False)
    answer = start(hold=0.5).ask("llama-a")
    assert answer.status == 503
    assert "has its GPU and does not listen" in answer.json()["error"]["message"]


def test_a_model_that_listens_late_is_waited_for(house: Any, start: Start) -> None:
    key = house.model("llama-a", listens=False)
    activator = start()
    port = house.server(key).server_address[1]
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(activator.ask, "llama-a")
        house.wait_for(lambda: activator.of("llama-a")["in_flight"], "it was brought in")
        house.servers[key.name] = type(house.server(key))("llama-a", port)
        assert request.result().status == 200


def test_requests_wait_for_an_agent_that_is_away_and_go_on_when_it_is_back(
    house: Any, start: Start
) -> None:
    house.model("llama-a")
    activator = start()
    activator.knows("llama-a", State.PARKED)
    house.agent.away()
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(activator.ask, "llama-a")
        house.wait_for(lambda: "is away" in activator.of("llama-a")["why"], "it says so")
        house.agent.is_away = False
        assert request.result().status == 200


def test_what_runs_is_reached_also_while_its_agent_is_away(house: Any, start: Start) -> None:
    house.model("llama-a", State.ACTIVE)
    house.agent.away()
    assert start().ask("llama-a").status == 200


@pytest.mark.parametrize(
    "skew", [pytest.param(-3600.0, id="back"), pytest.param(3600.0, id="ahead")]
)
def test_a_clock_that_is_set_neither_ends_nor_keeps_who_waits(
    house: Any, start: Start, skew: float
) -> None:
    house.model("llama-a")
    house.deployment("llama-b", 0, scale_to_zero="checkpoint")
    house.agent.gate.clear()
    activator = start(hold=60.0)
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(activator.ask, "llama-a")
        house.wait_for(lambda: activator.of("llama-a").get("waking"), "it is woken")
        house.clock.skew = skew
        after = pool.submit(activator.ask, "llama-b")
        house.wait_for(lambda: activator.of("llama-b").get("queued"), "who comes then waits, too")
        assert activator.view()["time"] == pytest.approx(house.clock.now(), abs=60.0)
        assert not before.done()
        house.agent.gate.set()
        assert before.result().status == 200
        house.scale("llama-b", 1)
        house.pod("llama-b", State.PARKED)
        assert after.result().status == 200


def test_a_wake_that_nobody_waits_for_any_more_is_given_up(house: Any, start: Start) -> None:
    key = house.model("llama-a")
    house.agent.gate.clear()
    activator = start()
    client = socket.create_connection(("127.0.0.1", activator.port))
    client.sendall(b"GET /models/llama-a/echo HTTP/1.1\r\nHost: x\r\n\r\n")
    house.wait_for(lambda: house.agent.wishes, "the wake")
    client.close()
    house.wait_for(lambda: house.agent.given_up == [key], "the wake given up")
    seen = activator.view()
    assert (seen["left"], seen["queued"]) == (1, 0)


def test_two_activators_bring_one_model_in_and_both_answer(house: Any, start: Start) -> None:
    house.model("llama-a")
    house.agent.gate.clear()
    both = [start(f"activator-{number}") for number in range(2)]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(both[number % 2].ask, "llama-a") for number in range(8)]
        for one in both:
            house.wait_for(lambda one=one: one.of("llama-a")["queued"] == 4, "all are held")
        house.agent.gate.set()
        assert {request.result().status for request in asked} == {200}


def test_an_activator_that_dies_with_requests_held_leaves_the_others_whole(
    house: Any, start: Start
) -> None:
    house.model("llama-a")
    house.agent.gate.clear()
    first, second = start("first"), start("second")
    broken, failed = [], threading.Event()

    def ask() -> None:
        try:
            broken.append(first.ask("llama-a").status)
        except urllib3.exceptions.HTTPError:
            failed.set()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(ask)
        kept = pool.submit(second.ask, "llama-a")
        for one in (first, second):
            house.wait_for(lambda one=one: one.of("llama-a").get("queued") == 1, "held")
        first.kill()
        assert failed.wait(60), broken  # its client knows at once, and asks again: the other one
        house.agent.gate.set()
        assert kept.result().status == 200
    assert second.ask("llama-a").status == 200


def test_an_activator_that_ends_refuses_what_it_holds_and_finishes_what_is_under_way(
    house: Any, start: Start
) -> None:
    house.model("held")
    key = house.model("running", State.ACTIVE)
    house.agent.gate.clear()
    activator = start()
    with ThreadPoolExecutor(3) as pool:
        held = pool.submit(activator.ask, "held")
        running = pool.submit(activator.ask, "running", "/wait")
        house.wait_for(lambda: activator.view()["queued"] == 1, "one is held")
        house.wait_for(lambda: house.server(key).asked["/wait"], "one is under way")
        ended = pool.submit(activator.stop)
        assert held.result().status == 503
        house.server(key).gate.set()
        assert running.result().status == 200
        ended.result()
