"""The demo's clients ask what the trace has, and nothing wrong escapes their count."""

import threading
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from activator.page import Board, Place
from testbed.multiplex import workload
from testbed.multiplex.replay import replay
from testbed.multiplex.screen import draw, found, line
from testbed.multiplex.tally import Answer, Tally

NAMES = workload.models(30)


def _replayed(address, requests, ahead=4):
    tally = Tally(requests)
    replay(address.url, tally, threading.Event().wait, ahead)
    return tally


def test_the_sample_is_asked_in_the_trace_s_order_and_shares():
    names = workload.models(5)
    requests = workload.of_trace(names, 40.0, clients=8)
    times = [one.at for one in requests]
    assert times == sorted(times)
    assert times[-1] == 40.0
    counts = Counter(one.model for one in requests)
    assert [counts[name] for name in names] == sorted(counts.values(), reverse=True)
    assert sum(counts.values()) == len(requests) == 259
    assert all(1 <= one.tokens <= 400 for one in requests)


def test_more_models_than_the_sample_has_are_refused():
    with pytest.raises(ValueError, match="6 models: the sample has 5"):
        workload.of_trace(workload.models(6), 1.0, 1)


def test_a_thousand_requests_to_thirty_models_are_all_answered_in_order(address):
    requests = workload.shuffled(NAMES, 1000, clients=20)
    switches = sum(a.model != b.model for a, b in pairwise(requests))
    assert switches > 900
    tally = _replayed(address, requests)
    assert tally.faults() == []
    assert len(tally.answers) == 1000
    assert set(address.counted) == set(NAMES)


def test_requests_are_asked_at_their_times(address):
    waits = []
    request = workload.Request(tag="r0", client=0, at=5.0, model="a", tokens=1)

    def passed(seconds):
        waits.append(seconds)
        return False

    tally = Tally([request])
    replay(address.url, tally, passed)
    assert tally.faults() == []
    assert 4.0 < waits[0] <= 5.0


def test_an_answer_by_another_model_is_found(address):
    def other(asked, answer):
        if asked["prompt"] == "r7":
            answer["model"] = "model-29"
            answer["choices"][0]["text"] = "model-29 answers request 1 (r7), contents intact."
        return 200

    address.twist = other
    faults = _replayed(address, workload.shuffled(NAMES[:5], 40, clients=4)).faults()
    assert any("was answered by 'model-29'" in fault for fault in faults)


def test_an_answer_to_another_s_question_is_found(address):
    def swapped(asked, answer):
        text = answer["choices"][0]["text"]
        answer["choices"][0]["text"] = text.replace("(r3)", "(r4)")
        return 200

    address.twist = swapped
    faults = _replayed(address, workload.shuffled(NAMES[:3], 20, clients=2)).faults()
    assert any("another request's answer" in fault for fault in faults)


def test_a_model_that_was_asked_twice_for_one_request_is_found(address):
    def twice(asked, answer):
        if asked["prompt"] == "r5":
            with address.lock:
                address.counted[asked["model"]] += 1
        return 200

    address.twist = twice
    requests = [
        workload.Request(tag=f"r{n}", client=0, at=0.0, model="a", tokens=1) for n in range(10)
    ]
    assert _replayed(address, requests).faults() == ["a was asked 10 times and counts 11"]


def test_damaged_contents_and_refusals_are_found(address):
    def bad(asked, answer):
        if asked["prompt"] == "r1":
            return 503
        if asked["prompt"] == "r2":
            answer["choices"][0]["text"] = answer["choices"][0]["text"].replace("intact", "DAMAGED")
        return 200

    address.twist = bad
    faults = " ".join(_replayed(address, workload.shuffled(NAMES[:2], 6, clients=1)).faults())
    assert "was answered 503" in faults
    assert "are DAMAGED" in faults


def test_a_connection_that_is_closed_loses_its_requests_and_says_so(address):
    address.twist = lambda asked, _: 0 if asked["prompt"] == "r2" else 200
    tally = _replayed(address, workload.shuffled(NAMES[:2], 8, clients=1))
    faults = tally.faults()
    assert any(fault.startswith("client 0: ") for fault in faults)
    assert sum("0 answers" in fault for fault in faults) == 6


@settings(max_examples=25)
@given(st.permutations(range(4)))
def test_answers_out_of_a_client_s_order_are_found(order):
    requests = [
        workload.Request(tag=f"r{n}", client=0, at=0.0, model="a", tokens=1) for n in range(4)
    ]
    tally = Tally(requests)
    for position, number in enumerate(order):
        text = f"a answers request {number + 1} (r{number}), contents intact."
        tally.answered(
            Answer(
                request=requests[number], status=200, model="a", text=text, seconds=0.1,
                position=position,
            )
        )  # fmt: skip
    assert bool(tally.faults()) == (list(order) != sorted(order))


def test_one_line_says_who_is_active_who_waits_and_where_models_were_found():
    view = {
        "counts": {"answered": 8, "held": 2},
        "models": [
            {"name": "a", "state": "Active", "held": 0},
            {"name": "b", "state": "Parked", "held": 2},
        ],
        "hits": {"vram": 3, "ram": 1},
        "wait": {"p50": 0.5, "p95": 2.0},
        "switches": 4,
    }
    assert line(view) == (
        "active a | answered 8 | waiting 2 (b 2) | found in VRAM 75 %, RAM 25 % | "
        "wait p50 0.50 s, p95 2.00 s | 4 switches"
    )
    assert found({}) == "nothing yet"


def test_the_live_table_fits_a_terminal_of_eighty_columns():
    board = Board()
    board.card("node-a", 0, "NVIDIA H100 80GB HBM3", 80 << 30, 40 << 30)
    for name, state in (("model-a", "Active"), ("model-b", "Parked")):
        board.placed(name, Place(state=state, node="node-a", gpus=(0,), tier="ram"))
        board.arrived(name, "ram")
    board.let_through("model-a", 12.5)
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(draw(board.snapshot()))
    shown = captured.get()
    assert "40 of 80 GiB" in shown
    assert "Parked (ram)" in shown
    assert "100 %" in shown
    assert "12.50" in shown
    assert "\u2026" not in shown
