"""What a deleted Node leaves is removed; the policies in force outlive every controller pod."""

import base64
import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from controller.departures import AFTER, Departures
from controller.keeping import CONFIGMAP, LARGEST, MEMBER, Keeping
from controller.publication import Publication
from kybernate.api import gpunodes, names
from kybernate.clients.resources import CONFIGMAPS, GPUNODES, LEASES, NODES
from kybernate.model.ids import NodeName
from kybernate.runtime.clock import SystemClock
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
SYSTEM = names.SYSTEM_NAMESPACE


def a_managed_node(name: str) -> list[dict[str, Any]]:
    return [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}},
        gpunodes.new_object(NodeName(name)),
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": f"kyb-agent-{name}", "namespace": SYSTEM},
        },
    ]


def left(kube: FakeKube) -> list[str]:
    return [obj["metadata"]["name"] for r in (GPUNODES, LEASES) for obj in kube.list(r)]


def test_what_a_deleted_node_leaves_is_removed_after_a_while(
    running: Wait, eventually: Wait
) -> None:
    kube, clock = FakeKube(*a_managed_node("a"), *a_managed_node("b")), FakeClock()
    with running(part := Departures(kube, clock, SYSTEM)):
        kube.delete(NODES, "a")
        eventually(lambda: part.look("a") == AFTER)
        clock.advance(AFTER - 1)
        assert part.look("a") == 1
        assert left(kube) == ["a", "b", "kyb-agent-a", "kyb-agent-b"]
        clock.advance(1)
        eventually(lambda: part.look("a") is None and left(kube) == ["b", "kyb-agent-b"])


def test_a_node_that_registers_anew_keeps_its_books(running: Wait, eventually: Wait) -> None:
    kube, clock = FakeKube(*a_managed_node("a")), FakeClock()
    with running(part := Departures(kube, clock, SYSTEM)):
        kube.delete(NODES, "a")
        eventually(lambda: part.look("a"))
        kube.seed(a_managed_node("a")[0])
        clock.advance(AFTER)
        eventually(lambda: part.look("a") is None)
        assert left(kube) == ["a", "kyb-agent-a"]


def a_bundle(revision: str) -> bytes:
    manifest = orjson.dumps({"revision": revision, "roots": ["kyb"]})
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        entry = tarfile.TarInfo("/.manifest")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    return gzip.compress(written.getvalue(), mtime=0)


def kept(content: bytes) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIGMAP, "namespace": SYSTEM},
        "binaryData": {MEMBER: base64.b64encode(content).decode()},
    }


@pytest.fixture
def publication(tmp_path: Path) -> Callable[[str], Publication]:
    """`publication("one")`: of a controller pod whose folder is its own, and empty."""
    return lambda pod: Publication(opa=Path("opa"), folder=tmp_path / pod)


def test_a_new_controller_serves_what_was_in_force(
    publication: Callable[[str], Publication], running: Wait, eventually: Wait
) -> None:
    kube, before, after = FakeKube(), publication("one"), publication("two")
    assert before.adopt(a_bundle("good"))
    with running(Keeping(kube, SystemClock(), SYSTEM, before)):
        eventually(lambda: kube.list(CONFIGMAPS))
    with running(Keeping(kube, SystemClock(), SYSTEM, after)):
        eventually(lambda: after.current)
    assert after.current == before.current


def test_what_a_controller_has_itself_is_not_replaced_but_kept(
    publication: Callable[[str], Publication], running: Wait, eventually: Wait
) -> None:
    kube, one = FakeKube(kept(a_bundle("old"))), publication("one")
    assert one.adopt(a_bundle("new"))
    with running(Keeping(kube, SystemClock(), SYSTEM, one)):
        eventually(
            lambda: kube.list(CONFIGMAPS)[0]["binaryData"] == kept(a_bundle("new"))["binaryData"]
        )
    assert one.current is not None
    assert one.current.revision == "new"


def test_a_spoiled_configmap_is_not_served(
    publication: Callable[[str], Publication], running: Wait
) -> None:
    one = publication("one")
    with running(Keeping(FakeKube(kept(b"no bundle")), SystemClock(), SYSTEM, one)):
        assert one.current is None


def test_what_is_too_large_for_a_configmap_is_not_written(
    publication: Callable[[str], Publication],
) -> None:
    kube, one = FakeKube(), publication("one")
    assert one.adopt(a_bundle("good"))
    assert one.current is not None
    object.__setattr__(one.current, "content", b"x" * (LARGEST + 1))
    part = Keeping(kube, SystemClock(), SYSTEM, one)
    for watch in part.watches:
        watch.start()
        assert watch.wait_synced(10)
    assert part.look() is None
    assert not kube.list(CONFIGMAPS)
    for watch in part.watches:
        watch.stop()
