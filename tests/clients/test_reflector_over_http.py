"""A reflector and a server that follows a script: what is on the wire when things break."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from kybernate.clients.backoff import Pace
from kybernate.clients.reflector import Reflector, Timing
from kybernate.clients.resources import CONFIGMAPS

Until = Callable[..., None]
QUICK = Timing(silence=30.0, pace=Pace(first=0.001, longest=0.01))


def an_object(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "d", "name": name, "uid": name, "resourceVersion": version}}


def added(name: str, version: str) -> dict[str, Any]:
    return {"type": "ADDED", "object": an_object(name, version)}


def bookmark(version: str) -> dict[str, Any]:
    return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}


GONE = {
    "type": "ERROR",
    "object": {
        "kind": "Status",
        "status": "Failure",
        "reason": "Expired",
        "message": "too old resource version: 7 (99)",
        "code": 410,
    },
}


def test_it_asks_for_pages_bookmarks_and_a_time_limit(
    scripted: Any, steps: Any, until: Until
) -> None:
    scripted.lists = [steps.a_list(version="5")]
    scripted.watches = [steps.events(then=scripted.ending.wait)]
    with Reflector(scripted.kube(), CONFIGMAPS, namespace="d", label_selector="a=b") as one:
        assert one.wait_synced(10)
        until(lambda: len(scripted.asked) == 2)
    assert scripted.asked == [
        {"labelSelector": "a=b", "limit": "500"},
        {
            "labelSelector": "a=b",
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "5",
            "timeoutSeconds": "300",
        },
    ]


def test_pages_belong_to_one_list(scripted: Any, steps: Any) -> None:
    scripted.lists = [
        steps.a_list(an_object("a", "1"), version="5", more="next"),
        steps.a_list(an_object("b", "2"), version="5"),
    ]
    scripted.watches = [steps.events(then=scripted.ending.wait)]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=QUICK) as one:
        assert one.wait_synced(10)
        assert set(one.items()) == {("d", "a"), ("d", "b")}
    assert scripted.asked[1]["continue"] == "next"


def test_a_list_that_expires_between_pages_begins_again(
    scripted: Any, steps: Any, until: Until
) -> None:
    scripted.lists = [
        steps.a_list(an_object("a", "1"), version="5", more="next"),
        steps.answer(410, GONE["object"]),
        steps.a_list(an_object("b", "8"), version="9"),
    ]
    scripted.watches = [steps.events(then=scripted.ending.wait)]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=QUICK) as one:
        assert one.wait_synced(10)
        assert set(one.items()) == {("d", "b")}


def test_it_goes_on_from_the_last_event_or_bookmark(
    scripted: Any, steps: Any, until: Until
) -> None:
    scripted.lists = [steps.a_list(version="5")]
    scripted.watches = [
        steps.events(added("a", "6")),
        steps.broken(added("b", "7"), bookmark("20")),
        steps.events(then=scripted.ending.wait),
    ]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=QUICK) as one:
        until(lambda: len(scripted.watched_from()) == 3)
        assert scripted.watched_from() == ["5", "6", "20"]
        assert one.lists == 1
        assert set(one.items()) == {("d", "a"), ("d", "b")}


@pytest.mark.parametrize("how", ["event", "status"])
def test_410_makes_it_list_again(scripted: Any, steps: Any, until: Until, how: str) -> None:
    gone = steps.events(GONE) if how == "event" else steps.answer(410, GONE["object"])
    scripted.lists = [
        steps.a_list(an_object("a", "1"), version="5"),
        steps.a_list(an_object("b", "90"), version="99"),
    ]
    scripted.watches = [gone, steps.events(then=scripted.ending.wait)]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=QUICK) as one:
        until(lambda: scripted.watched_from() == ["5", "99"])
        assert set(one.items()) == {("d", "b")}
        assert one.failures == 0


def test_another_error_event_is_a_failure_that_keeps_the_place(
    scripted: Any, steps: Any, until: Until
) -> None:
    overloaded = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "oh"}}
    scripted.lists = [steps.a_list(version="5")]
    scripted.watches = [steps.events(overloaded), steps.events(then=scripted.ending.wait)]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=QUICK) as one:
        until(lambda: scripted.watched_from() == ["5", "5"])
        assert (one.lists, one.failures) == (1, 1)


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param({"type": "ADDED"}, id="no-object"),
        pytest.param({"unexpected": True}, id="no-type"),
    ],
)
def test_an_unreadable_event_is_a_broken_connection(
    scripted: Any, steps: Any, until: Until, rubbish: dict[str, Any]
) -> None:
    scripted.lists = [steps.a_list(version="5")]
    scripted.watches = [
        steps.events(added("a", "6"), rubbish),
        steps.events(then=scripted.ending.wait),
    ]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=QUICK) as one:
        until(lambda: scripted.watched_from() == ["5", "6"])
        assert one.failures == 1


def test_failures_are_answered_with_growing_pauses(scripted: Any, steps: Any, until: Until) -> None:
    pace = Pace(first=0.02, longest=0.32)
    scripted.lists = [steps.answer(500, {"message": "not yet"})]
    scripted.watches = [steps.hang_up]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=Timing(pace=pace)):
        until(lambda: len(scripted.times) >= 6)
    gaps = [
        after - before for before, after in zip(scripted.times, scripted.times[1:], strict=False)
    ]
    for index, gap in enumerate(gaps[:5]):
        whole = min(0.02 * 2**index, 0.32)
        assert gap >= whole * 0.5, f"pause {index} was {gap:.3f} s"


def test_a_watch_that_ends_at_once_without_a_word_does_not_spin(
    scripted: Any, steps: Any, until: Until
) -> None:
    scripted.lists = [steps.a_list(version="5")]
    scripted.watches = [steps.events()]
    with Reflector(
        scripted.kube(), CONFIGMAPS, timing=Timing(pace=Pace(first=0.05, longest=10.0))
    ) as one:
        assert one.wait_synced(10)
        until(lambda: len(scripted.watched_from()) >= 4)
        # three pauses of at least half of 0.05, 0.1 and 0.2 s
        assert scripted.times[4] - scripted.times[1] >= 0.175


def test_a_server_that_asks_for_patience_gets_it(scripted: Any, steps: Any, until: Until) -> None:
    busy = {"code": 429, "message": "busy", "details": {"retryAfterSeconds": 0.3}}
    scripted.lists = [steps.answer(429, busy), steps.a_list(version="5")]
    scripted.watches = [steps.events(then=scripted.ending.wait)]
    with Reflector(scripted.kube(), CONFIGMAPS, timing=QUICK) as one:
        assert one.wait_synced(10)
        assert scripted.times[1] - scripted.times[0] >= 0.3


def test_a_silent_connection_is_given_up(scripted: Any, steps: Any, until: Until) -> None:
    """Half-open: the peer is there for the kernel, and never says a word again."""
    scripted.lists = [steps.a_list(version="5")]
    scripted.watches = [
        steps.events(added("a", "6"), then=scripted.ending.wait),
        steps.events(added("b", "7"), then=scripted.ending.wait),
    ]
    began = time.monotonic()
    timing = Timing(silence=0.2, pace=Pace(first=0.001, longest=0.01))
    with Reflector(scripted.kube(), CONFIGMAPS, timing=timing) as one:
        until(lambda: ("d", "b") in one.items())
        assert scripted.watched_from()[:2] == ["5", "6"]
        assert one.lists == 1
        assert time.monotonic() - began < 10


def test_stopping_does_not_wait_for_a_silent_connection(
    scripted: Any, steps: Any, until: Until
) -> None:
    scripted.lists = [steps.a_list(version="5")]
    scripted.watches = [steps.events(added("a", "6"), then=scripted.ending.wait)]
    one = Reflector(scripted.kube(), CONFIGMAPS)
    one.start()
    until(lambda: ("d", "a") in one.items())
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 2


def test_stopping_does_not_wait_for_a_long_pause(scripted: Any, steps: Any, until: Until) -> None:
    scripted.lists = [steps.answer(500, {"message": "no"})]
    scripted.watches = [steps.hang_up]
    slow = Timing(pace=Pace(first=60.0, longest=60.0))
    one = Reflector(scripted.kube(), CONFIGMAPS, timing=slow)
    one.start()
    until(lambda: one.failures == 1)
    began = time.monotonic()
    one.stop()
    assert time.monotonic() - began < 2
