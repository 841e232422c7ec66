"""What every API server tells a watch, the fakes included."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kybernate.clients.errors import Gone
from kybernate.clients.kube import Kube, Watch, WatchEvent
from kybernate.clients.resources import CONFIGMAPS, PODS
from kybernate.testing.builders import a_pod


def a_configmap(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "data": {"key": "1"}}


def version_of_list(kube: Kube, namespace: str) -> str:
    return next(iter(kube.pages(CONFIGMAPS, namespace))).resource_version


def said(events: Iterator[WatchEvent], count: int) -> list[tuple[str, str]]:
    found = []
    for event in events:
        if event.kind != "BOOKMARK":
            found.append((event.kind, event.obj["metadata"]["name"]))
        if len(found) == count:
            break
    return found


def test_changes_after_the_version_are_told_in_order(kube: Kube, namespace: str) -> None:
    kube.create(CONFIGMAPS, a_configmap("before"), namespace)
    version = version_of_list(kube, namespace)
    kube.create(CONFIGMAPS, a_configmap("one"), namespace)
    kube.patch(CONFIGMAPS, "one", {"data": {"key": "2"}}, namespace)
    with kube.watch(
        CONFIGMAPS, namespace, resource_version=version, field_selector="metadata.name=one"
    ) as watch:
        events = iter(watch)
        assert said(events, 2) == [("ADDED", "one"), ("MODIFIED", "one")]
        kube.delete(CONFIGMAPS, "one", namespace)
        assert said(events, 1) == [("DELETED", "one")]


def test_a_watch_goes_on_from_the_last_version_it_saw(kube: Kube, namespace: str) -> None:
    version = version_of_list(kube, namespace)
    selector = "metadata.name!=kube-root-ca.crt"
    kube.create(CONFIGMAPS, a_configmap("one"), namespace)
    kube.create(CONFIGMAPS, a_configmap("two"), namespace)
    with kube.watch(
        CONFIGMAPS, namespace, resource_version=version, field_selector=selector
    ) as watch:
        first = next(iter(watch))
    seen = first.obj["metadata"]["resourceVersion"]
    with kube.watch(CONFIGMAPS, namespace, resource_version=seen, field_selector=selector) as watch:
        assert said(iter(watch), 1) == [("ADDED", "two")]


def test_an_object_that_leaves_the_selection_is_told_as_deleted(kube: Kube, namespace: str) -> None:
    version = version_of_list(kube, namespace)
    with kube.watch(
        CONFIGMAPS, namespace, resource_version=version, label_selector="tier=hot"
    ) as watch:
        events = iter(watch)
        kube.create(CONFIGMAPS, a_configmap("one", tier="cold"), namespace)
        kube.patch(CONFIGMAPS, "one", {"metadata": {"labels": {"tier": "hot"}}}, namespace)
        kube.patch(CONFIGMAPS, "one", {"metadata": {"labels": {"tier": "cold"}}}, namespace)
        assert said(events, 2) == [("ADDED", "one"), ("DELETED", "one")]


def test_a_deleted_object_carries_the_version_of_its_end(kube: Kube, namespace: str) -> None:
    kube.create(CONFIGMAPS, a_configmap("one"), namespace)
    version = version_of_list(kube, namespace)
    kube.delete(CONFIGMAPS, "one", namespace)
    with kube.watch(CONFIGMAPS, namespace, resource_version=version) as watch:
        gone = next(event for event in watch if event.kind == "DELETED")
    assert int(gone.obj["metadata"]["resourceVersion"]) > int(version)


@pytest.mark.parametrize("kube", ["memory", "http"], indirect=True)
def test_a_version_that_is_forgotten_is_gone(kube: Kube, namespace: str) -> None:
    # The real one forgets after minutes only; what it says then is in the scripted answers of
    # test_reflector_over_http.py.
    with (
        pytest.raises(Gone),
        kube.watch(CONFIGMAPS, namespace, resource_version="1") as watch,
    ):
        for _ in watch:
            pass


def test_closing_from_another_thread_ends_a_silent_watch(kube: Kube, namespace: str) -> None:
    watch = kube.watch(
        CONFIGMAPS,
        namespace,
        resource_version=version_of_list(kube, namespace),
        field_selector="metadata.name=nothing",
    )
    ended = threading.Event()
    reader = threading.Thread(target=_read_all, args=(watch, ended))
    reader.start()
    watch.close()
    assert ended.wait(10)
    reader.join()


def test_watches_of_one_namespace_do_not_tell_of_another(kube: Kube, namespace: str) -> None:
    version = next(iter(kube.pages(PODS))).resource_version
    with kube.watch(PODS, namespace, resource_version=version) as watch:
        kube.create(PODS, a_pod("elsewhere", namespace="default", resource=None))
        kube.create(PODS, a_pod("here", namespace=namespace, resource=None))
        assert said(iter(watch), 1) == [("ADDED", "here")]
    kube.delete(PODS, "elsewhere", "default", grace_seconds=0)


def _read_all(watch: Watch, ended: threading.Event) -> None:
    for _ in watch:
        pass
    ended.set()
