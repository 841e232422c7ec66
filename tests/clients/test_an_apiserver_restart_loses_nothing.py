"""A real API server is stopped and started under a reflector and an event recorder."""

from collections.abc import Callable

import pytest

from kybernate.clients.backoff import Pace
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Reflector, Timing
from kybernate.clients.resources import CONFIGMAPS, EVENTS, NAMESPACES
from kybernate.model.verdict import EventReason
from kybernate.runtime.clock import SystemClock
from testbed.controlplane import ControlPlane

Until = Callable[..., None]
NAME = "metadata.name!=kube-root-ca.crt"


@pytest.mark.controlplane
def test_the_view_is_whole_and_queued_events_arrive(plane: ControlPlane, until: Until) -> None:
    kube = Kube.from_kubeconfig(plane.admin_kubeconfig)
    namespace = kube.create(NAMESPACES, {"metadata": {"generateName": "restart-"}})["metadata"][
        "name"
    ]
    timing = Timing(pace=Pace(first=0.05, longest=0.5))
    changes: list[tuple[str, str]] = []
    events = EventRecorder(kube, "kyb.ai/test", "here", SystemClock())
    with Reflector(
        kube,
        CONFIGMAPS,
        namespace=namespace,
        field_selector=NAME,
        timing=timing,
        on_change=lambda change: changes.append((change.kind, change.key[1])),
    ) as one:
        assert one.wait_synced(30)
        for name in ("a", "b"):
            kube.create(CONFIGMAPS, {"metadata": {"name": name}}, namespace)
        until(lambda: len(changes) == 2)

        plane.stop_apiserver()
        regarding = ObjectRef(kind="Pod", namespace=namespace, name="p", uid="u")
        events.record(regarding, EventReason.PARKED, "Parking", "parked while nobody listened")
        until(lambda: one.failures >= 1)
        plane.start_apiserver()

        kube.delete(CONFIGMAPS, "a", namespace)
        kube.patch(CONFIGMAPS, "b", {"data": {"key": "2"}}, namespace)
        kube.create(CONFIGMAPS, {"metadata": {"name": "c"}}, namespace)
        until(lambda: len(changes) == 5)
        assert changes[2:] == [("DELETED", "a"), ("MODIFIED", "b"), ("ADDED", "c")]
        assert {key[1] for key in one.items()} == {"b", "c"}
        assert events.flush(30)
        notes = [event["note"] for event in kube.list(EVENTS, namespace)]
        assert notes == ["parked while nobody listened"]
    events.stop()
    kube.close()
