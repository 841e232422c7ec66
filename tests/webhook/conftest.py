"""
Seat pods as the API server shows them to a webhook, and an application of our own patches.

Faked: policy and the view of the cluster. Real: everything of `webhook/`.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from webhook import wire
from webhook.wire import Addition

SEAT = "kyb.ai/gpu-1x-seat"
Pod = dict[str, Any]


@pytest.fixture(scope="session")
def a_container() -> Callable[..., dict[str, Any]]:
    """`a_container("main", limits={...}, requests={...})`."""
    return make_container


@pytest.fixture(scope="session")
def a_pod() -> Callable[..., Pod]:
    """`a_pod(container, ..., annotations={...}, nodeName="n1")`; one seat where none is given."""
    return make_pod


@pytest.fixture(scope="session")
def a_complete_pod() -> Callable[..., Pod]:
    """`a_complete_pod(vram="40Gi")`: nothing is missing, nothing is wrong."""
    return make_complete_pod


@pytest.fixture(scope="session")
def patched() -> Callable[[Pod, Iterable[Addition]], Pod]:
    """`patched(pod, additions)`."""
    return apply


def make_container(name: str = "main", **resources: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "image": "model", "resources": resources}


def make_pod(
    *containers: dict[str, Any], annotations: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """A pod at CREATE: the API server's defaults are in, name and uid may not be."""
    metadata: dict[str, Any] = {"generateName": "chat-", "namespace": "models"}
    if annotations is not None:
        metadata["annotations"] = annotations
    chosen = list(containers) or [make_container(limits={SEAT: "1"}, requests={SEAT: "1"})]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": chosen, "schedulerName": "default-scheduler", **spec},
    }


def make_complete_pod(**annotations: str) -> dict[str, Any]:
    named = {f"kyb.ai/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return make_pod(annotations=named, runtimeClassName="kybernate")


def apply(pod: dict[str, Any], additions: Iterable[Addition]) -> dict[str, Any]:
    """The pod after the patch, applied as RFC 6902 says: a missing parent is an error."""
    result = copy.deepcopy(pod)
    for operation in wire.patch_of(tuple(additions)):
        parts = operation["path"].split("/")[1:]
        *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in parts)
        target: Any = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        target[last] = copy.deepcopy(operation["value"])
    return result
