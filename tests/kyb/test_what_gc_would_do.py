"""`kyb gc --dry-run` prints the controller's plan with its reasons, and deletes nothing."""

from collections.abc import Callable
from typing import Any

from click.testing import Result

from kybernate.api import names, timestamps
from kybernate.clients.resources import GPUCHECKPOINTS
from kybernate.testing.fakekube import FakeKube

Kyb = Callable[..., Result]


def checkpoint(name: str, **kept: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True", "reason": "Sealed"}]
    if kept:
        at = timestamps.rfc3339(1_700_000_000)
        conditions.append({"type": "Kept", "lastTransitionTime": at, **kept})
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"workload": "statefulset.llama.0"},
        "status": {
            "sizeBytes": 3 * 2**30,
            "sealedAt": timestamps.rfc3339(1_700_000_000),
            "conditions": conditions,
        },
    }


def test_it_says_what_goes_what_stays_and_why(kube: FakeKube, kyb: Kyb) -> None:
    kube.seed(
        checkpoint("old", status="False", reason="Replaced", message=""),
        checkpoint("named", status="True", reason="Referenced", message="pod llama-1"),
        checkpoint("fresh"),
    )
    answer = kyb("gc", "--dry-run")
    assert answer.exit_code == 0, answer.output
    lines = {line.split()[1]: line for line in answer.output.splitlines()[1:-1]}
    assert "collect" in lines["old"]
    assert "Replaced" in lines["old"]
    assert "keep" in lines["named"]
    assert "Referenced: pod llama-1" in lines["named"]
    assert "not judged yet" in lines["fresh"]
    assert "1 of 3 go when their grace time is over: 3.0 GiB" in answer.output
    assert len(kube.list(GPUCHECKPOINTS)) == 3


def test_without_dry_run_it_does_nothing_and_says_who_does(kube: FakeKube, kyb: Kyb) -> None:
    kube.seed(checkpoint("old", status="False", reason="Replaced"))
    answer = kyb("gc")
    assert answer.exit_code == 1
    assert "the controller collects by itself" in answer.output
    assert len(kube.list(GPUCHECKPOINTS)) == 1


def test_where_there_are_none_it_says_so(kyb: Kyb) -> None:
    assert "no checkpoints" in kyb("gc", "--dry-run").output
