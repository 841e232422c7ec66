"""`kyb store usage`: what each namespace keeps in object storage, and of how much."""

import json
from collections.abc import Callable
from typing import Any

from kyb.usage import rows_of
from kybernate.api import names
from kybernate.model.storelimits import StoreLimits
from kybernate.testing.builders import a_checkpoint
from kybernate.testing.fakekube import FakeKube

GIB = 1 << 30
QUOTAS = {
    "store_bytes": 400 * GIB,
    "default": {"store_bytes": 100 * GIB},
    "namespaces": {"lab": {}},
}


def policies(quotas: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kyb-policies", "namespace": names.SYSTEM_NAMESPACE},
        "data": {"data__quotas.json": json.dumps(quotas)},
    }


def checkpoint(name: str, namespace: str, *copies: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"workload": "statefulset.llama.0"},
        "status": {"sizeBytes": 40 * GIB, "copies": list(copies)},
    }


def test_each_namespace_and_all_of_them() -> None:
    found = [
        a_checkpoint("a", in_object_storage=True),
        a_checkpoint("b", in_object_storage=True),
        a_checkpoint("c"),
        a_checkpoint("d", namespace="lab", in_object_storage=True),
    ]
    limits = StoreLimits(whole=400 * GIB, default=100 * GIB, namespaces={"lab": None, "new": 0})
    assert rows_of(found, limits) == [
        ("default", "2", "80 GiB", "100 GiB"),
        ("lab", "1", "40 GiB", "-"),
        ("new", "0", "0 B", "0 B"),
        ("(all)", "3", "120 GiB", "400 GiB"),
    ]
    assert rows_of([], None) == [("(all)", "0", "0 B", "-")]


def test_as_it_is_typed(kube: FakeKube, kyb: Callable[..., Any]) -> None:
    there = {"tier": "object"}
    kube.seed(
        checkpoint("a", "default", there),
        checkpoint("b", "lab", {"node": "node-a", "tier": "nvme"}),
        policies(QUOTAS),
    )
    said = kyb("store", "usage").output.split()
    assert said[4:] == ["default", "1", "40", "GiB", "100", "GiB", "(all)", "1", "40", "GiB",
                        "400", "GiB"]  # fmt: skip


def test_who_may_not_read_the_limits_sees_what_is_kept(
    kube: FakeKube, kyb: Callable[..., Any]
) -> None:
    kube.seed(checkpoint("a", "default", {"tier": "object"}))
    said = kyb("store", "usage").output
    assert "40 GiB" in said
    assert "cannot be read" in said
