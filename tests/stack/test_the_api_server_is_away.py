"""The API server is away: on the node everything goes on, and is told when it is back."""

from typing import Any

import pytest

from kybernate.clients.resources import GPUNODES
from kybernate.model.workload import State

pytestmark = [pytest.mark.controlplane, pytest.mark.crash]


def test_switching_goes_on_without_it_and_everything_is_told_afterwards(cluster: Any) -> None:
    for name in ("first", "second"):
        cluster.model(name, "one", "8Gi")
        cluster.loaded(name)
    addresses = {name: cluster.address(name) for name in ("first", "second")}
    parked, resumed = cluster.times("first", "Parked"), cluster.times("second", "Resumed")
    with cluster.without_api_server():
        for name in ("first", "second"):
            assert cluster.activate(name, node="one").ok
            answer = cluster.predict(name, addresses[name])
            assert answer == answer | {"counter": 1, "intact": True}
    cluster.until(lambda: cluster.times("first", "Parked") > parked, "the park is told")
    cluster.until(lambda: cluster.times("second", "Resumed") > resumed, "the resume is told")
    cluster.until(lambda: cluster.status("second").get("state") == "Active", "the status")
    cluster.until(lambda: cluster.status("first").get("state") == "Parked", "the status")
    cluster.until(lambda: _tenants(cluster) == {"first": "Parked", "second": "Active"}, "GpuNode")
    cluster.trainer("afterwards", 1)
    cluster.until(lambda: cluster.phase("afterwards") == "Succeeded", "pods are placed again")
    assert [
        cluster.pod(name)["status"]["containerStatuses"][0]["restartCount"] for name in addresses
    ] == [0, 0]


def test_a_restart_in_the_middle_of_a_switch_is_not_noticed_by_models(cluster: Any) -> None:
    for name in ("first", "second"):
        cluster.model(name, "one", "40Gi")
        cluster.loaded(name)
    cluster.until(cluster.is_("second", State.ACTIVE), "the second")
    with cluster.caught("first", "one", "parking") as answer:
        with cluster.without_api_server():
            pass
        assert answer.result().ok
    assert cluster.predict("first")["intact"]
    cluster.until(lambda: cluster.events("second", "Parked"), "the event")
    cluster.until(lambda: cluster.status("first").get("state") == "Active", "the status")


def _tenants(cluster: Any) -> dict[str, str]:
    status = cluster.kube.get(GPUNODES, "one")["status"]
    return {t["workload"]["name"]: t["state"] for t in status.get("tenants", [])}
