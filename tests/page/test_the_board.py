"""What the page is told: counts, lanes, percentiles; bounded, whatever happens."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.page import HEADERS, Board, Place, asset, frame
from activator.page.board import KEPT, SPAN_S, percentiles


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    return Board(clock)


def place(state, tier="ram", gpus=(0,)):
    return Place(state=state, node="node-a", gpus=gpus, tier=tier, vram=40 << 30)


def test_nothing_has_happened_yet(board):
    shown = board.snapshot()
    assert shown["models"] == shown["lanes"] == []
    assert shown["counts"]["requests"] == 0
    assert shown["wait"] == {"count": 0, "p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}


def test_a_request_is_held_then_running_then_answered(board):
    board.arrived("a", "ram")
    assert board.snapshot()["models"][0]["held"] == 1
    board.let_through("a", 1.5)
    running = board.snapshot()["models"][0]
    assert (running["held"], running["running"]) == (0, 1)
    board.answered("a")
    done = board.snapshot()
    assert done["counts"] == {
        "requests": 1, "answered": 1, "held": 0, "running": 0, "turned_away": 0, "by_status": {},
    }  # fmt: skip
    assert done["hits"]["ram"] == 1
    assert done["models"][0]["wait"]["p50"] == 1.5


def test_one_that_was_turned_away_waits_no_more(board):
    board.arrived("a", "none")
    board.turned_away("a", 429)
    counts = board.snapshot()["counts"]
    assert (counts["held"], counts["turned_away"], counts["by_status"]) == (0, 1, {"429": 1})


def test_a_model_on_its_way_is_found_where_it_was_parked(board):
    for state, tier in (("Parked", "nvme"), ("Activating", "")):
        board.placed("a", place(state, tier))
    board.arrived("a", "cold")
    board.arrived("b", "cold")
    hits = board.snapshot()["hits"]
    assert (hits["nvme"], hits["none"]) == (1, 1)


def test_a_lane_tells_who_was_on_the_card_and_on_the_way_there(board, clock):
    board.placed("a", place("Parked"))
    for at, state in ((1.0, "Activating"), (2.0, "Active"), (5.0, "Parking"), (6.0, "Parked")):
        clock.now = at
        board.placed("a", place(state))
    spans = board.snapshot()["lanes"][0]["spans"]
    assert [(one["kind"], one["from"], one["to"]) for one in spans] == [
        ("moving", 1.0, 2.0), ("active", 2.0, 5.0), ("moving", 5.0, 6.0),
    ]  # fmt: skip
    assert board.snapshot()["switches"] == 1


def test_a_pod_that_is_gone_ends_its_turn(board, clock):
    board.placed("a", place("Active"), pod="default/a-1")
    clock.now = 3.0
    board.gone("a", "default/a-1")
    assert board.snapshot()["lanes"][0]["spans"][0]["to"] == 3.0
    assert board.snapshot()["models"][0]["state"] == "Absent"


def test_the_active_one_of_several_pods_is_shown(board):
    board.placed("a", place("Parked"), pod="1")
    board.placed("a", place("Active", "vram", (1,)), pod="2")
    row = board.snapshot()["models"][0]
    assert (row["state"], row["tier"], row["pods"], row["gpus"]) == ("Active", "vram", 2, [1])


def test_a_group_of_two_cards_is_in_both_lanes(board):
    board.placed("a", place("Active", gpus=(0, 1)))
    assert [lane["gpu"] for lane in board.snapshot()["lanes"]] == [0, 1]


def test_turns_that_ended_before_the_window_are_not_told(board, clock):
    board.placed("a", place("Active"))
    board.placed("a", place("Parked"))
    clock.now = SPAN_S + 1
    assert board.snapshot()["lanes"][0]["spans"] == []


def test_what_changed_is_known_by_its_version(board):
    seen = board.version
    assert not board.changed(seen)
    board.card("node-a", 0, "H100", 80 << 30, 0)
    assert board.changed(seen)


def test_only_the_last_waits_are_kept(board):
    for _ in range(KEPT + 100):
        board.arrived("a", "vram")
        board.let_through("a", 0.1)
    assert board.snapshot()["wait"]["count"] == KEPT


@given(st.lists(st.floats(0, 1000, allow_nan=False), min_size=1))
def test_percentiles_are_waits_that_were_and_in_order(waits):
    found = percentiles(waits)
    assert found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert found["max"] == round(max(waits), 4)


def test_a_frame_is_one_event_of_one_line(board):
    board.arrived("line\nbreak", "ram")
    text = frame(board.snapshot()).decode()
    assert text.startswith("retry: 1000\ndata: {")
    assert text.endswith("}\n\n")
    assert json.loads(text.partition("data: ")[2])["models"][0]["name"] == "line\nbreak"


def test_only_the_page_s_own_files_are_given_out():
    assert asset("/").content_type.startswith("text/html")
    assert asset("/ui/page.js").content_type.startswith("text/javascript")
    for path in ("/ui/board.py", "/ui/../page/board.py", "/etc/passwd", "", "/ui/page.html"):
        assert asset(path) is None
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]


def test_the_files_name_no_other_host():
    for path in ("/", "/ui/page.js", "/ui/lanes.js", "/ui/models.js", "/ui/tiers.js"):
        text = asset(path).body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
