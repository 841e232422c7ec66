"""The real API server validates events; it takes ours, and their series."""

from collections.abc import Callable

import pytest

from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.resources import EVENTS, NAMESPACES
from kybernate.model.verdict import EventReason
from kybernate.runtime.clock import SystemClock
from testbed.controlplane import ControlPlane


@pytest.mark.controlplane
def test_events_and_their_series_are_accepted(
    plane: ControlPlane, until: Callable[..., None]
) -> None:
    kube = Kube.from_kubeconfig(plane.admin_kubeconfig)
    namespace = kube.create(NAMESPACES, {"metadata": {"generateName": "events-"}})["metadata"][
        "name"
    ]
    pod = ObjectRef(kind="Pod", namespace=namespace, name="llama-a", uid="uid-a")
    node = ObjectRef(kind="GpuNode", name="node-a", api_version="kyb.ai/v1alpha1")
    events = EventRecorder(kube, "kyb.ai/test", "x" * 300, SystemClock())
    for _ in range(2):
        events.record(pod, EventReason.PARKED, "Parking", "é" * 2000, warning=True, related=node)
    events.record(node, EventReason.QUARANTINED, "Quarantining", f"of {namespace}")
    assert events.flush(30)
    assert events.dropped == 0
    (event,) = kube.list(EVENTS, namespace)
    assert event["series"]["count"] == 2
    assert event["type"] == "Warning"
    assert f"of {namespace}" in [one["note"] for one in kube.list(EVENTS, "default")]
    assert "Parked" in plane.kubectl("get", "events", "-n", namespace)
    events.stop()
    kube.close()
