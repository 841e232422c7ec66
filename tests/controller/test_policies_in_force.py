"""The ConfigMap becomes the bundle in force; events say so; refused pods are tried again.

Faked: the API server, the clock, OPA beside us, and the check of a bundle. Real: watch, queue,
publication on disk.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller import bundles
from controller.bundles import Bundle, BundleRefused
from controller.policies import CONFIGMAP, Announcer, Outcome, Policies, Waking
from controller.publication import Publication
from kybernate.api import names, policy_files
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.resources import CONFIGMAPS, EVENTS, NODES
from kybernate.model.ids import Revision
from kybernate.runtime.clock import SystemClock
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube
from kybernate.testing.policy import FakePolicy

Wait = Callable[..., Any]
SYSTEM = "kyb-system"
GOOD = {"data__classes.json": "{}"}
BETTER = {"data__classes.json": '{"batch": {}}'}
BAD = {"kyb__admission__admission.rego": "package"}


def a_configmap(data: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": CONFIGMAP, "namespace": SYSTEM, "uid": "cm"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def revision_of(data: Mapping[str, str]) -> str:
    return policy_files.revision_of(policy_files.from_keys(data))


@pytest.fixture
def publication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publication:
    def build(files: Mapping[str, str], _opa: Path) -> Bundle:
        revision = policy_files.revision_of(files)
        if any(path.endswith(".rego") for path in files):
            raise BundleRefused(revision, ["kyb/admission/admission.rego:1: no package name"])
        return Bundle(revision=revision, content=b"tar")

    monkeypatch.setattr(bundles, "build", build)
    return Publication(opa=Path("opa"), folder=tmp_path)


def test_good_policies_are_published_and_bad_ones_leave_them_in_force(
    publication: Publication, running: Wait, eventually: Wait
) -> None:
    kube = FakeKube(a_configmap(GOOD), namespace=SYSTEM)
    told: list[Outcome] = []
    part = Policies(kube, SystemClock(), SYSTEM, publication, lambda _, what: told.append(what))
    with running(part):
        eventually(lambda: told)
        kube.patch(CONFIGMAPS, CONFIGMAP, {"data": BAD}, SYSTEM)
        eventually(lambda: len(told) == 2)
        assert publication.current is not None
        assert publication.current.revision == revision_of(GOOD)
        removed = dict.fromkeys(BAD)
        kube.patch(CONFIGMAPS, CONFIGMAP, {"data": removed | BETTER}, SYSTEM)
        eventually(lambda: len(told) == 3)
    assert [outcome.revision for outcome in told] == [
        revision_of(GOOD),
        revision_of(GOOD | BAD),
        revision_of(BETTER),
    ]
    assert [bool(outcome.fault) for outcome in told] == [False, True, False]


def test_keys_that_are_no_paths_are_named(
    publication: Publication, running: Wait, eventually: Wait
) -> None:
    kube = FakeKube(a_configmap({"../etc/passwd": ""}), namespace=SYSTEM)
    told: list[Outcome] = []
    part = Policies(kube, SystemClock(), SYSTEM, publication, lambda _, what: told.append(what))
    with running(part):
        eventually(lambda: told)
    assert "../etc/passwd" in told[0].fault


def test_events_are_told_by_the_leader_and_soon_by_its_successor() -> None:
    clock, kube = FakeClock(), FakeKube(namespace=SYSTEM)
    events = EventRecorder(kube, "kyb.ai/controller", "me", clock)
    leading = False
    announcer = Announcer(events, clock, lambda: leading)
    configmap = ObjectRef(kind="ConfigMap", name=CONFIGMAP, namespace=SYSTEM, uid="cm")
    announcer(configmap, Outcome("sha256:1"))
    clock.advance(31)
    announcer.start()  # somebody else led meanwhile
    announcer(configmap, Outcome("sha256:2"))
    clock.advance(10)
    announcer.start()
    leading = True
    announcer(configmap, Outcome("sha256:3", fault="syntax"))
    assert events.flush(10)
    found = [(event["reason"], event["type"], event["note"]) for event in kube.list(EVENTS, SYSTEM)]
    assert sorted(found) == [
        ("PolicyPublished", "Normal", "policies sha256:2 are in force"),
        ("PolicyRefused", "Warning", "the policies before stay in force: syntax"),
    ]
    events.stop()


def a_node(name: str) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": name, "annotations": {"mine": "stays"}}}


def annotations(kube: FakeKube, name: str) -> dict[str, str]:
    return dict(kube.get(NODES, name)["metadata"]["annotations"])


def test_one_node_is_annotated_when_opa_has_the_policies_and_others_had_time() -> None:
    clock, kube, opa = FakeClock(), FakeKube(a_node("n1"), a_node("n2")), FakePolicy()
    opa.in_force = Revision("old")
    waking = Waking(kube, clock, lambda: "new", opa, lambda: ["gone", "n1", "n2"], 5.0)
    assert waking.look() == 0.5
    opa.in_force = Revision("new")
    assert waking.look() == 5.0
    clock.advance(5)
    assert waking.look() is None
    assert annotations(kube, "n1") == {"mine": "stays", names.POLICY_REVISION: "new"}
    assert names.POLICY_REVISION not in annotations(kube, "n2")


def test_the_same_policies_wake_nobody_twice() -> None:
    clock, kube = FakeClock(), FakeKube(a_node("n1"))
    for _ in range(2):  # the second is a new leader
        waking = Waking(kube, clock, lambda: "new", None, lambda: ["n1"], 5.0)
        waking.look()
        clock.advance(5)
        waking.look()
    assert [asked for asked in kube.asked if asked.startswith("PATCH")] == [
        "PATCH /api/v1/nodes/n1"
    ]


def test_policies_that_change_again_start_the_wait_again() -> None:
    clock, kube = FakeClock(), FakeKube(a_node("n1"))
    revisions = ["one"]
    waking = Waking(kube, clock, lambda: revisions[-1], None, lambda: ["n1"], 5.0)
    waking.look()
    clock.advance(4)
    revisions.append("two")
    assert waking.look() == 5.0
    clock.advance(5)
    waking.look()
    assert annotations(kube, "n1")[names.POLICY_REVISION] == "two"


def test_policies_that_come_back_before_others_were_told_of_wake_whom_these_refused() -> None:
    clock, kube = FakeClock(), FakeKube(a_node("n1"))
    revisions = ["mine"]
    waking = Waking(kube, clock, lambda: revisions[-1], None, lambda: ["n1"], 5.0)

    def in_force(revision: str) -> str:
        revisions.append(revision)
        waking.look()
        clock.advance(5)
        waking.look()
        return annotations(kube, "n1")[names.POLICY_REVISION]

    assert in_force("mine") == "mine"
    for times in (1, 2):
        revisions.append("closed")
        waking.look()
        assert in_force("mine") == f"mine+{times}"
    assert in_force("mine") == "mine+2"
    assert in_force("other") == "other"


def test_without_policies_or_nodes_nothing_is_done() -> None:
    clock, kube = FakeClock(), FakeKube()
    assert Waking(kube, clock, lambda: None, None, list, 0.0).look() is None
    assert Waking(kube, clock, lambda: "r", None, list, 0.0).look() is None
    assert kube.asked == []
