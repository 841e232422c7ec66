"""Durations as Go writes them, times as RFC 3339 does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api.duration import format_seconds, parse_seconds
from kybernate.api.timestamps import parse_rfc3339, rfc3339, rfc3339_micro


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h0m5.5s", 3605.5),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("100ns", 1e-7),
        ("1m1m", 120.0),
        (" 30s ", 30.0),
    ],
)
def test_go_durations_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "0",
        "-5s",
        "+5s",
        "5 m",
        "5d",
        "s",
        "1h30",
        "1h 30m",
        "5M",
        "1e3s",
        "٥s",
        "1s" * 40,
    ],
)
def test_a_number_without_a_unit_and_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="like 90s, 5m or 1h30m"):
        parse_seconds(text)


@given(st.integers(0, 10**9))
def test_a_formatted_duration_reads_back_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "0.25s"), (90, "1m30s"), (3600, "1h"), (5400.5, "1h30m0.5s"), (20, "20s")],
)
def test_the_shortest_form_is_written(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_times_are_written_with_seconds_or_microseconds() -> None:
    assert rfc3339(1700000000.9) == "2023-11-14T22:13:20Z"
    assert rfc3339_micro(1700000000.25) == "2023-11-14T22:13:20.250000Z"


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14t22:13:20z", 1700000000.0),
        ("2023-11-14T22:13:20.250000Z", 1700000000.25),
        ("2023-11-14T22:13:20.123456789Z", 1700000000.123456789),
        ("2023-11-15T00:13:20+02:00", 1700000000.0),
        ("1970-01-01T00:00:00Z", 0.0),
    ],
)
def test_times_are_read(text: str, epoch: float) -> None:
    assert parse_rfc3339(text) == pytest.approx(epoch)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-11-14",
        "2023-11-14 22:13:20Z",
        "2023-11-14T22:13:20",
        "2023-13-14T22:13:20Z",
        "now",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="like 2026-01-31T12:00:00Z"):
        parse_rfc3339(text)


@given(st.integers(0, 4_000_000_000))
def test_a_written_time_reads_back_the_same(epoch: int) -> None:
    assert parse_rfc3339(rfc3339(epoch)) == epoch
