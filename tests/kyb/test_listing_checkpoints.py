"""`kyb checkpoint list`: one row for each, with what it added and what it cost its workload."""

from collections.abc import Callable
from typing import Any

from kyb.checkpoints.listing import rows_of
from kybernate.api import names, timestamps
from kybernate.testing.fakekube import FakeKube

NOW = 1_700_000_000.0
GIB = 1 << 30


def a_checkpoint(name: str, at: float, workload: str = "train-0", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"workload": workload},
        "status": {"sizeBytes": 40 * GIB, "sealedAt": timestamps.rfc3339(at), **status},
    }


def test_a_row_says_what_it_added_and_how_long_its_workload_stood_still() -> None:
    copies = [{"node": "node-b", "tier": "nvme"}, {"tier": "object"}]
    kept = {
        "type": "Kept", "status": "True", "reason": "Newest",
        "lastTransitionTime": timestamps.rfc3339(NOW),
    }  # fmt: skip
    one = a_checkpoint(
        "b", NOW - 41, added="310 MiB", pause={"seconds": 1.31, "text": "1.31s"}, copies=copies,
        conditions=[kept],
    )  # fmt: skip
    old = a_checkpoint("a", NOW - 9000)
    assert rows_of([one, old], NOW) == [
        ("default", "a", "train-0", "2h30m", "40.0 GiB", "-", "-", "-", "-"),
        (
            "default", "b", "train-0", "41s", "40.0 GiB", "310 MiB", "1.31s",
            "node-b (nvme), object storage", "Newest",
        ),
    ]  # fmt: skip


def test_of_one_workload_only_and_none_at_all(kube: FakeKube, kyb: Callable[..., Any]) -> None:
    assert "no checkpoints" in kyb("checkpoint", "list").output
    kube.seed(a_checkpoint("a", NOW), a_checkpoint("b", NOW, "other-0"))
    said = kyb("checkpoint", "list", "other-0").output
    assert "other-0" in said
    assert "train-0" not in said
    assert rows_of([{"metadata": {"name": "x"}, "status": {"sizeBytes": "none"}}], NOW) == []
