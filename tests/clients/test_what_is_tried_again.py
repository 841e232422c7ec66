"""Reads are tried again by themselves, writes never: they may have been done."""

import socket
import time
from typing import Any

import pytest

from kybernate.clients.connection import HttpTransport
from kybernate.clients.errors import Forbidden, Retry, Unavailable, from_status
from kybernate.clients.kube import Kube
from kybernate.clients.kubeconfig import Access
from kybernate.clients.resources import CONFIGMAPS

EMPTY = {"items": [], "metadata": {}}


def test_a_read_survives_a_server_that_is_starting(scripted: Any, steps: Any) -> None:
    scripted.lists = [steps.answer(503, {}), steps.answer(503, {}), steps.answer(200, EMPTY)]
    assert scripted.kube().list(CONFIGMAPS) == []


def test_a_read_survives_a_connection_that_was_closed_meanwhile(scripted: Any, steps: Any) -> None:
    scripted.lists = [steps.hang_up, steps.answer(200, EMPTY)]
    assert scripted.kube().list(CONFIGMAPS) == []


def test_a_read_in_a_hurry_is_tried_once(scripted: Any, steps: Any) -> None:
    scripted.lists = [steps.answer(503, {"message": "starting"}), steps.answer(200, EMPTY)]
    with pytest.raises(Unavailable, match="starting"):
        scripted.kube().within(2.0).list(CONFIGMAPS)


def test_a_hurried_read_does_not_outlast_its_time(scripted: Any, steps: Any) -> None:
    scripted.lists = [steps.events(then=scripted.ending.wait)]
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        scripted.kube().within(0.1).list(CONFIGMAPS)
    assert caught.value.reason == "Timeout"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("how", ["hang_up", "unavailable"])
def test_a_write_is_never_tried_again(scripted: Any, steps: Any, how: str) -> None:
    step = steps.hang_up if how == "hang_up" else steps.answer(503, {"message": "no"})
    scripted.writes = [step]
    with pytest.raises(Unavailable) as caught:
        scripted.kube().create(CONFIGMAPS, {"metadata": {"name": "a"}}, "default")
    assert isinstance(caught.value, Retry)
    assert len(scripted.asked) == 1


def test_nobody_listening_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    kube = Kube(HttpTransport(Access(server=f"http://127.0.0.1:{port}")))
    with pytest.raises(Unavailable) as caught:
        kube.list(CONFIGMAPS)
    assert (caught.value.status, caught.value.reason) == (0, "Network")


def test_an_answer_that_is_not_json_is_unavailable_because_it_is_not_the_api_server(
    scripted: Any, steps: Any
) -> None:
    scripted.lists = [steps.text(200, b"<html>sign in</html>")]
    with pytest.raises(Unavailable, match="not JSON"):
        scripted.kube().list(CONFIGMAPS)


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        pytest.param(401, b"who?", Forbidden, "Unknown", id="401-text"),
        pytest.param(302, b"", Exception, "Unknown", id="redirect"),
        pytest.param(502, b"<html>", Unavailable, "Unknown", id="502-html"),
        pytest.param(403, b'{"reason":"Forbidden"}', Forbidden, "Forbidden", id="403"),
        pytest.param(403, b'["a list"]', Forbidden, "Unknown", id="403-list"),
    ],
)
def test_errors_are_translated_whatever_their_body(
    scripted: Any, steps: Any, status: int, body: bytes, kind: type[Exception], reason: str
) -> None:
    scripted.lists = [steps.text(status, body)]
    with pytest.raises(kind) as caught:
        scripted.kube().within(5).list(CONFIGMAPS)
    assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert caught.value.status == status  # type: ignore[attr-defined]


def test_how_long_to_wait_is_taken_from_header_or_details() -> None:
    assert from_status(429, {}, 3.0).after == 3.0  # type: ignore[attr-defined]
    busy = from_status(503, {"details": {"retryAfterSeconds": 7}})
    assert busy.after == 7  # type: ignore[attr-defined]
    assert from_status(500, {}).after is None  # type: ignore[attr-defined]
