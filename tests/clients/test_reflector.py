"""A reflector's copy follows the server, whatever happens between them."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kybernate.clients import kube as kube_module
from kybernate.clients import reflector as reflector_module
from kybernate.clients.backoff import Pace
from kybernate.clients.errors import Forbidden
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector, Timing, unready
from kybernate.clients.resources import CONFIGMAPS, PODS
from kybernate.testing.builders import a_pod
from kybernate.testing.fakekube import FakeKube

Until = Callable[..., None]
QUICK = Timing(pace=Pace(first=0.001, longest=0.01))


class Seen:
    """What `on_change` was told: ("ADDED", "a", old, new)."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, Any, Any]] = []

    def __call__(self, change: Change[Any]) -> None:
        self.changes.append((change.kind, change.key[1], change.old, change.new))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        return [(kind, name) for kind, name, _, _ in self.changes]


def a_configmap(name: str, value: str = "1") -> dict[str, Any]:
    return {"kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}


def value_of(obj: dict[str, Any]) -> str:
    return str(obj["data"]["value"])


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube(a_configmap("a"), a_configmap("b"))


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def reflector(kube: FakeKube, seen: Seen) -> Iterator[Reflector[str]]:
    made = Reflector(kube, CONFIGMAPS, project=value_of, on_change=seen, timing=QUICK)
    with made:
        assert made.wait_synced(10)
        yield made


def change(kube: Kube, name: str, value: str) -> None:
    kube.patch(CONFIGMAPS, name, {"data": {"value": value}}, "default")


def test_the_first_list_is_told_before_it_is_synced(reflector: Reflector[str], seen: Seen) -> None:
    assert seen.kinds == [("ADDED", "a"), ("ADDED", "b")]
    assert reflector.items() == {("default", "a"): "1", ("default", "b"): "1"}
    assert reflector.get(("default", "a")) == "1"
    assert reflector.get(("default", "c")) is None


def test_it_is_not_synced_before_the_first_list(kube: FakeKube) -> None:
    kube.outage()
    with Reflector(kube, CONFIGMAPS, timing=QUICK) as reflector:
        assert not reflector.wait_synced(0.01)
        assert not reflector.synced
        kube.recover()
        assert reflector.wait_synced(10)


def test_changes_are_told_with_what_was_before(
    kube: FakeKube, reflector: Reflector[str], seen: Seen, until: Until
) -> None:
    seen.changes.clear()
    change(kube, "a", "2")
    kube.create(CONFIGMAPS, a_configmap("c"), "default")
    kube.delete(CONFIGMAPS, "b", "default")
    until(lambda: len(seen.changes) == 3)
    assert seen.changes == [
        ("MODIFIED", "a", "1", "2"),
        ("ADDED", "c", None, "1"),
        ("DELETED", "b", "1", None),
    ]
    assert reflector.items() == {("default", "a"): "2", ("default", "c"): "1"}


def test_a_broken_watch_goes_on_where_it_was(
    kube: FakeKube, reflector: Reflector[str], seen: Seen, until: Until
) -> None:
    kube.outage()
    kube.server.store.seed(("", "configmaps"), "default", a_configmap("c"))
    kube.recover()
    until(lambda: ("ADDED", "c") in seen.kinds)
    assert reflector.lists == 1
    assert reflector.failures >= 1


def test_when_the_server_has_forgotten_the_place_it_lists_again_and_tells_the_difference(
    kube: FakeKube, reflector: Reflector[str], seen: Seen, until: Until
) -> None:
    kube.outage()
    seen.changes.clear()
    store = kube.server.store
    store.seed(("", "configmaps"), "default", a_configmap("a", "2"))
    store.seed(("", "configmaps"), "default", a_configmap("c"))
    store.delete(("", "configmaps"), ("default", "b"), {})
    kube.compact()
    kube.recover()
    until(lambda: reflector.lists == 2 and len(seen.changes) == 3)
    assert seen.changes == [
        ("MODIFIED", "a", "1", "2"),
        ("ADDED", "c", None, "1"),
        ("DELETED", "b", "1", None),
    ]


def test_what_did_not_change_is_not_told_again_by_a_second_list(
    kube: FakeKube, reflector: Reflector[str], seen: Seen, until: Until
) -> None:
    seen.changes.clear()
    kube.compact()
    until(lambda: reflector.lists == 2)
    change(kube, "a", "2")
    until(lambda: bool(seen.changes))
    assert seen.kinds == [("MODIFIED", "a")]


def test_an_object_made_again_under_its_name_is_an_end_and_a_beginning(
    kube: FakeKube, reflector: Reflector[str], seen: Seen, until: Until
) -> None:
    kube.outage()
    seen.changes.clear()
    store = kube.server.store
    store.delete(("", "configmaps"), ("default", "a"), {})
    store.create(("", "configmaps"), "default", a_configmap("a", "2"))
    kube.compact()
    kube.recover()
    until(lambda: len(seen.changes) == 2)
    assert seen.changes == [("DELETED", "a", "1", None), ("ADDED", "a", None, "2")]


def test_bookmarks_move_the_place_without_a_change(
    kube: FakeKube, reflector: Reflector[str], seen: Seen, until: Until
) -> None:
    seen.changes.clear()
    for index in range(3):  # of another kind: this watch is not told
        kube.create(PODS, a_pod(f"pod-{index}", resource=None))
    kube.bookmark()
    until(lambda: reflector._version == str(kube.server.store.version))
    kube.server.break_watches()
    until(lambda: reflector.failures == 1 and len(_watches(kube)) == 2)
    assert _watches(kube)[-1] == str(kube.server.store.version)
    assert seen.changes == []


def test_an_object_that_projects_to_nothing_is_left_out(kube: FakeKube, until: Until) -> None:
    seen = Seen()

    def only_large(obj: dict[str, Any]) -> int | None:
        value = int(value_of(obj))
        return value if value >= 5 else None

    with Reflector(kube, CONFIGMAPS, project=only_large, on_change=seen, timing=QUICK) as one:
        assert one.wait_synced(10)
        assert one.items() == {}
        for value in ("5", "6", "1", "2"):
            change(kube, "a", value)
        until(lambda: len(seen.changes) == 3)
        assert seen.changes == [
            ("ADDED", "a", None, 5),
            ("MODIFIED", "a", 5, 6),
            ("DELETED", "a", 6, None),
        ]


def test_an_object_that_cannot_be_read_is_left_out_and_counted(kube: FakeKube) -> None:
    kube.seed(a_configmap("bad", "x"))
    with Reflector(kube, CONFIGMAPS, project=lambda o: int(value_of(o)), timing=QUICK) as one:
        assert one.wait_synced(10)
        assert sorted(one.items().values()) == [1, 1]
        assert one.failures == 1


def test_a_listener_that_fails_does_not_end_it(kube: FakeKube, until: Until) -> None:
    told: list[str] = []

    def fails_once(change: Change[Any]) -> None:
        told.append(change.key[1])
        if len(told) == 1:
            raise RuntimeError("a bug in the listener")

    with Reflector(kube, CONFIGMAPS, on_change=fails_once, timing=QUICK) as one:
        assert one.wait_synced(10)
        assert told == ["a", "b"]
        assert one.failures == 1


def test_selectors_reach_the_server(kube: FakeKube, until: Until) -> None:
    kube.seed(a_pod("here", spec={"nodeName": "n1"}), a_pod("there", spec={"nodeName": "n2"}))
    with Reflector(
        kube, PODS, namespace="default", field_selector="spec.nodeName=n1", timing=QUICK
    ) as one:
        assert one.wait_synced(10)
        assert set(one.items()) == {("default", "here")}
        kube.delete(PODS, "here", "default", grace_seconds=0)
        until(lambda: one.items() == {})


def test_a_list_longer_than_a_page_is_whole(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_module, "PAGE", 4)
    kube.seed(*(a_configmap(f"n{index}") for index in range(10)))
    with Reflector(kube, CONFIGMAPS, timing=QUICK) as one:
        assert one.wait_synced(10)
        assert len(one.items()) == 12


def test_a_refusal_is_tried_again_because_roles_may_come_later(kube: FakeKube) -> None:
    kube.fail("GET", "configmaps", Forbidden(403, "Forbidden", "not yet"), times=3)
    with Reflector(kube, CONFIGMAPS, timing=QUICK) as one:
        assert one.wait_synced(10)
        assert one.failures == 3


def test_stopping_is_prompt_and_can_be_repeated(kube: FakeKube) -> None:
    reflector = Reflector(kube, CONFIGMAPS, timing=QUICK)
    reflector.start()
    assert reflector.wait_synced(10)
    reflector.stop()
    reflector.stop()
    assert not [t for t in threading.enumerate() if t.name == "reflector-configmaps"]


def test_stopping_from_within_a_change_does_not_wait_for_itself(kube: FakeKube) -> None:
    stopped = threading.Event()

    def stop(_: Change[Any]) -> None:
        reflector.stop()
        stopped.set()

    reflector = Reflector(kube, CONFIGMAPS, on_change=stop, timing=QUICK)
    reflector.start()
    assert stopped.wait(10)
    reflector.stop()


def test_readers_never_see_a_half_made_copy(kube: FakeKube, until: Until) -> None:
    """Many writes, many readers: a copy taken is one that stood at some moment."""
    with Reflector(kube, CONFIGMAPS, project=value_of, timing=QUICK) as one:
        assert one.wait_synced(10)
        done = threading.Event()
        copies: list[int] = []

        def read() -> None:
            while not done.is_set():
                copies.append(len(one.items()))

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for index in range(50):
            kube.create(CONFIGMAPS, a_configmap(f"more-{index}"), "default")
        until(lambda: len(one.items()) == 52)
        done.set()
        for reader in readers:
            reader.join()
        assert set(copies) <= set(range(2, 53))


def _watches(kube: FakeKube) -> list[str]:
    return [
        request.query["resourceVersion"]
        for request in kube.server.requests
        if request.query.get("watch") == "true"
    ]


def test_a_broken_watch_is_said_though_everything_was_seen_once(
    kube: FakeKube, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reflector(kube, CONFIGMAPS, timing=QUICK) as one:
        assert one.wait_synced(10)
        until(lambda: one.following)
        assert (one.broken_seconds, unready([one])) == (0.0, None)
        kube.outage()
        until(lambda: one.broken_seconds > 0)
        assert one.synced
        assert unready([one]) is None, "a restart of the API server is nothing to report"
        monkeypatch.setattr(reflector_module, "PATIENCE_S", 0.0)
        assert str(unready([one])).startswith("the watch of configmaps is broken for ")
        kube.recover()
        until(lambda: one.following)
        assert (one.broken_seconds, unready([one])) == (0.0, None)


def test_before_the_first_list_it_says_how_many_are_missing(kube: FakeKube) -> None:
    assert unready([Reflector(kube, CONFIGMAPS), Reflector(kube, PODS)]) == (
        "2 first lists are under way"
    )
    assert unready([]) is None
