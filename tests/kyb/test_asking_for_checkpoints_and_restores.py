"""`kyb checkpoint` and `kyb restore`: the requests they make, and what they say."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kybernate.api import gpuworkloads, names
from kybernate.clients.errors import ApiError, Forbidden
from kybernate.clients.resources import CHECKPOINTREQUESTS, RESTOREREQUESTS, Resource
from kybernate.testing.builders import a_pod, a_workload
from kybernate.testing.fakekube import FakeKube

Kyb = Callable[..., Any]


def a_checkpoint(workload: str, name: str = "llama-1") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "GpuCheckpoint",
        "metadata": {"name": name},
        "spec": {"workload": workload},
    }


@pytest.fixture(autouse=True)
def there(kube: FakeKube) -> None:
    kube.seed(gpuworkloads.new_object(a_workload("llama-a")))
    kube.seed(a_checkpoint("statefulset.llama.2"))


@pytest.fixture
def carried_out(kube: FakeKube) -> Callable[..., None]:
    """The controller: writes this status to the first request of a kind."""

    def carry_out(resource: Resource, status: Mapping[str, Any]) -> None:
        def work() -> None:
            pause = threading.Event()
            while not (found := kube.list(resource)):
                pause.wait(0.01)
            name = found[0]["metadata"]["name"]
            patch = {"status": dict(status)}
            kube.patch(resource, name, patch, "default", subresource="status")

        threading.Thread(target=work, daemon=True).start()

    return carry_out


def test_a_checkpoint_is_asked_for_and_the_request_is_named(kube: FakeKube, kyb: Kyb) -> None:
    said = kyb("checkpoint", "llama-a", "--name", "before", "--leave", "parked", "--within", "60")
    assert said.exit_code == 0, said.output
    (made,) = kube.list(CHECKPOINTREQUESTS)
    assert made["spec"] == {
        "workload": "llama-a", "name": "before", "leave": "Parked", "within": "1m",
    }  # fmt: skip
    assert made["metadata"]["name"].startswith("llama-a-")
    assert f"kubectl get -n default checkpointrequest/{made['metadata']['name']}" in said.output


def test_a_gold_image_is_asked_for(kube: FakeKube, kyb: Kyb) -> None:
    assert kyb("checkpoint", "llama-a", "--gold").exit_code == 0
    (made,) = kube.list(CHECKPOINTREQUESTS)
    assert made["spec"]["gold"] is True


def test_what_a_gold_image_gives_away_of_secrets_is_said(kube: FakeKube, kyb: Kyb) -> None:
    env = [
        {"name": "A", "value": "b"},
        {"name": "P", "valueFrom": {"secretKeyRef": {"name": "db"}}},
    ]
    container = {"env": env, "envFrom": [{"secretRef": {"name": "keys"}}, {"configMapRef": {}}]}
    projected = {"sources": [{"secret": {"name": "tls"}}, {"serviceAccountToken": {}}]}
    volumes = [{"secret": {"secretName": "db"}}, {"projected": projected}, {"emptyDir": {}}]
    metadata = {"name": "llama-a", "namespace": "default"}
    spec = {"containers": [container], "volumes": volumes}
    kube.seed({"kind": "Pod", "metadata": metadata, "spec": spec})
    words = (
        "every replica will have in its memory what default/llama-a read of Secrets: db, keys, tls"
    )
    assert words in " ".join(kyb("checkpoint", "llama-a", "--gold").output.split())
    assert "Secrets" not in kyb("checkpoint", "llama-a").output
    assert len(kube.list(CHECKPOINTREQUESTS)) == 2


def test_waiting_tells_the_name_of_what_was_sealed(kyb: Kyb, carried_out: Kyb) -> None:
    status = {"state": "Succeeded", "message": "sealed in 1.5 s", "checkpoint": "llama-a-7"}
    carried_out(CHECKPOINTREQUESTS, status)
    said = kyb("checkpoint", "default/llama-a", "--wait")
    assert (said.exit_code, said.output) == (0, "llama-a-7: sealed in 1.5 s\n")


def test_waiting_for_what_fails_says_why_with_status_1(kyb: Kyb, carried_out: Kyb) -> None:
    carried_out(CHECKPOINTREQUESTS, {"state": "Failed", "message": "workload is quarantined"})
    said = kyb("checkpoint", "llama-a", "--wait")
    assert said.exit_code == 1
    assert "workload is quarantined" in said.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(
            ["checkpoint", "nobody"], "no workload default/nobody: `kyb ps` lists them",
            id="no-such-workload",
        ),
        pytest.param(
            ["checkpoint", "a/b/c"], "'a/b/c' is no name: expected NAME or NAMESPACE/NAME",
            id="no-name",
        ),
        pytest.param(
            ["restore", "nothing"], "no checkpoint default/nothing", id="no-such-checkpoint"
        ),
        pytest.param(
            ["restore", "llama-1", "--owner", "job/x"],
            "--owner job/x: expected deployment/NAME or statefulset/NAME", id="no-such-kind",
        ),
        pytest.param(
            ["restore", "llama-1", "--owner", "deployment/x", "--like", "llama-a"],
            "deployment/x and llama-a: expected one of --owner, --like and", id="two-of-them",
        ),
        pytest.param(
            ["restore", "llama-1", "--like", "nobody"],
            "--like nobody: there is no such pod in default", id="like-nobody",
        ),
        pytest.param(
            ["restore", "llama-1", "--pod", "mine"], "statefulset/llama names its pods itself",
            id="name-of-an-owners-pod",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_before_a_request_is_made(
    kube: FakeKube, kyb: Kyb, words: list[str], told: str
) -> None:
    said = kyb(*words)
    assert said.exit_code == 1
    assert told in said.output
    assert not kube.list(CHECKPOINTREQUESTS) + kube.list(RESTOREREQUESTS)


@pytest.mark.parametrize("leave", ["--leave=dead", "--within=1"])
def test_an_option_that_is_not_accepted_names_what_is(kyb: Kyb, leave: str) -> None:
    said = kyb("checkpoint", "llama-a", leave)
    assert said.exit_code == 2
    assert "running" in said.output or "10" in said.output


@pytest.mark.parametrize(
    ("sealed", "owner"),
    [
        ("statefulset.llama.2", {"kind": "StatefulSet", "name": "llama"}),
        ("statefulset.my.llama.0", {"kind": "StatefulSet", "name": "my.llama"}),
        ("deployment.chat", {"kind": "Deployment", "name": "chat"}),
    ],
)
def test_what_was_sealed_says_what_is_to_wake(
    kube: FakeKube, kyb: Kyb, sealed: str, owner: dict[str, str]
) -> None:
    kube.seed(a_checkpoint(sealed, "one"))
    assert kyb("restore", "one").exit_code == 0
    assert kube.list(RESTOREREQUESTS)[0]["spec"] == {
        "checkpoint": "one", "owner": owner, "within": "15m",
    }  # fmt: skip


def test_a_jobs_pod_has_nothing_that_can_be_scaled(kube: FakeKube, kyb: Kyb) -> None:
    kube.seed(a_checkpoint("job.train.3", "one"))
    said = kyb("restore", "one")
    assert said.exit_code == 1
    assert "say --like POD or --file FILE" in said.output


def test_a_pod_like_another_is_asked_for(kube: FakeKube, kyb: Kyb, carried_out: Kyb) -> None:
    kube.seed(a_pod("llama-a", spec={**a_pod()["spec"], "nodeName": "node-a"}))
    carried_out(RESTOREREQUESTS, {"state": "Succeeded", "message": "it woke", "pod": "again"})
    said = kyb("restore", "llama-1", "--like", "llama-a", "--pod", "again", "--wait")
    assert (said.exit_code, said.output) == (0, "again: it woke\n")
    pod = kube.list(RESTOREREQUESTS)[0]["spec"]["pod"]
    assert pod["name"] == "again"
    assert "nodeName" not in pod["template"]["spec"]


def test_a_pod_of_a_file_is_asked_for(kube: FakeKube, kyb: Kyb, tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(a_pod()))
    assert kyb("restore", "llama-1", "-f", str(file)).exit_code == 0
    made = kube.list(RESTOREREQUESTS)[0]["spec"]["pod"]["template"]
    assert made["spec"]["containers"] == a_pod()["spec"]["containers"]
    file.write_text("just: words")
    said = kyb("restore", "llama-1", "-f", str(file))
    assert said.exit_code == 1
    assert "expected a Pod, or what has a pod template" in said.output


def test_an_answer_of_the_api_server_is_passed_on(kube: FakeKube, kyb: Kyb) -> None:
    kube.fail("POST", "checkpointrequests", Forbidden(403, "Forbidden", "you may not"))
    said = kyb("checkpoint", "llama-a")
    assert isinstance(said.exception, ApiError)
    assert "you may not" in str(said.exception)
