"""Without extender or webhook seat pods wait or are refused, and nobody else is in the way."""

from collections.abc import Callable
from typing import Any

import pytest

from kybernate.clients.errors import ApiError

pytestmark = [pytest.mark.controlplane, pytest.mark.crash]


def _plain(a_seat_pod: Callable[..., dict[str, Any]], name: str) -> dict[str, Any]:
    return a_seat_pod(name, ["sleep", "0"], seat="", cls="")


def test_without_the_extender_seat_pods_wait_and_others_do_not(
    cluster: Any, a_seat_pod: Callable[..., dict[str, Any]]
) -> None:
    cluster.kill("extender")
    try:
        cluster.trainer("seated", 1)
        cluster.create(_plain(a_seat_pod, "plain"))
        cluster.create({**_plain(a_seat_pod, "ours"), **_scheduled_by_us(a_seat_pod)})
        for name in ("plain", "ours"):
            cluster.until(lambda name=name: cluster.phase(name) == "Succeeded", f"{name} ran")
        cluster.until(lambda: cluster.events("seated", "FailedScheduling"), "why it waits")
        assert cluster.node_of("seated") == ""
    finally:
        cluster.stack.start_again("extender")
    cluster.until(lambda: cluster.phase("seated") == "Succeeded", "it is tried again")


def _scheduled_by_us(a_seat_pod: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A pod without a seat that goes to the scheduler that asks the extender."""
    pod = _plain(a_seat_pod, "ours")
    return {"spec": {**pod["spec"], "schedulerName": "kybernate"}}


def test_without_the_webhook_seat_pods_are_refused_and_others_are_not(
    cluster: Any, a_seat_pod: Callable[..., dict[str, Any]]
) -> None:
    cluster.kill("webhook")
    try:
        with pytest.raises(ApiError, match=r"validate\.kyb\.ai"):
            cluster.trainer("seated", 1)
        cluster.create(_plain(a_seat_pod, "plain"))
        cluster.until(lambda: cluster.phase("plain") == "Succeeded", "it ran")
    finally:
        cluster.stack.start_again("webhook")
    cluster.until(lambda: _created(cluster), "it is taken again")
    cluster.until(lambda: cluster.phase("seated") == "Succeeded", "it ran")


def _created(cluster: Any) -> bool:
    try:
        cluster.trainer("seated", 1)
    except ApiError:
        return False
    return True
