"""The routes: what is asked over HTTP, what is answered, and what happens when something is broken.

Faked: policy, the view. Real: Flask, the codecs, defaulting, validation.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from kybernate.api import goldimages, names
from kybernate.api.goldimages import Seated
from kybernate.model.policy import SharingQuestion, SharingVerdict
from kybernate.model.verdict import Reason, Refusal
from kybernate.runtime.health import Health
from kybernate.runtime.metrics import Metrics
from kybernate.testing.policy import FakePolicy
from webhook import app as routes
from webhook.admission import Admission
from webhook.app import Parts, make_app

Make = Callable[..., Any]
SEAT = "kyb.ai/gpu-1x-seat"


@dataclass
class FakeView:
    """Answers what it was told."""

    known: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    deployments: dict[tuple[str, str], int] = field(default_factory=dict)
    wanted: dict[tuple[str, str, str], tuple[str, ...]] = field(default_factory=dict)
    images: set[tuple[str, str]] = field(default_factory=set)
    broken: bool = False

    def checkpoints(self, namespace: str, workload: str) -> tuple[str, ...]:
        return self.known.get((namespace, workload), ())

    def gold(self, namespace: str, pod: Seated) -> tuple[str, ...]:
        name = f"{pod.labels.get('app', '')}-{pod.version}"
        return (name,) if (namespace, name) in self.images else ()

    def asked(self, namespace: str, kind: str, name: str) -> tuple[str, ...]:
        return self.wanted.get((namespace, kind, name), ())

    def replicas(self, namespace: str, deployment: str) -> int | None:
        return self.deployments.get((namespace, deployment))

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        if self.broken:
            raise RuntimeError("the view is broken")
        return {"team": namespace}

    def seats_used(self, namespace: str) -> Mapping[str, int] | None:
        return {SEAT: 2}


@dataclass
class Webhook:
    """The application with its fakes."""

    client: FlaskClient
    policy: FakePolicy
    view: FakeView
    metrics: Metrics

    def ask(self, verb: str, pod: Any, **request: Any) -> dict[str, Any]:
        base = {"uid": "u", "operation": "CREATE", "namespace": "models", "object": pod}
        review = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": base | {"kind": {"kind": "Pod"}} | request,
        }
        answer = self.client.post(f"/{verb}", data=orjson.dumps(review))
        assert answer.status_code == 200
        response = orjson.loads(answer.data)["response"]
        assert response["uid"] == "u"
        return dict(response)

    def patch(self, pod: Any) -> list[dict[str, Any]]:
        response = self.ask("mutate", pod)
        assert response["allowed"] is True
        patch = response.get("patch")
        return [] if patch is None else list(orjson.loads(base64.b64decode(patch)))


@pytest.fixture
def webhook() -> Webhook:
    policy, view, metrics, health = FakePolicy(defaults={}), FakeView(), Metrics(), Health()
    schedulers = frozenset({"default-scheduler"})
    admission = Admission(policy=policy, view=view, scheduler="", schedulers=schedulers)
    client = make_app(Parts(admission, health, metrics)).test_client()
    return Webhook(client, policy, view, metrics)


def annotations_of(patch: list[dict[str, Any]]) -> dict[str, str]:
    prefix = "/metadata/annotations/"
    return {
        op["path"].removeprefix(prefix).replace("~1", "/"): op["value"]
        for op in patch
        if op["path"].startswith(prefix)
    }


def test_a_seat_pod_is_completed_and_its_author_warned(webhook: Webhook, a_pod: Make) -> None:
    webhook.policy.defaults = {names.CLASS: "inference"}
    response = webhook.ask("mutate", a_pod())
    assert response["patchType"] == "JSONPatch"
    assert names.VRAM in response["warnings"][0]
    assert annotations_of(webhook.patch(a_pod())) == {names.CLASS: "inference"}


@pytest.mark.parametrize("verb", ["mutate", "validate"])
def test_a_pod_without_a_seat_is_allowed_untouched_and_policy_not_asked(
    webhook: Webhook, a_pod: Make, a_container: Make, verb: str
) -> None:
    webhook.policy.away = True
    pod = a_pod(a_container(), nodeName="n1", schedulerName="other")
    assert webhook.ask(verb, pod) == {"uid": "u", "allowed": True}
    assert webhook.policy.asked == []


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "CONNECT"])
def test_only_creation_is_judged(webhook: Webhook, a_pod: Make, operation: str) -> None:
    pod = a_pod(nodeName="n1")
    assert webhook.ask("validate", pod, operation=operation)["allowed"] is True
    assert "patch" not in webhook.ask("mutate", pod, operation=operation)


def test_policy_is_asked_about_the_pod_with_its_namespace_and_needs(
    webhook: Webhook, a_complete_pod: Make
) -> None:
    webhook.ask("validate", a_complete_pod(vram="40Gi", min_runtime="5m"))
    (question,) = webhook.policy.asked
    assert (question.namespace, question.resource) == ("models", SEAT)
    assert (question.vram, question.min_runtime_seconds) == (40 * 1024**3, 300)
    assert (question.namespace_labels, question.seats_used) == ({"team": "models"}, {SEAT: 2})


def test_what_policy_denies_is_refused_in_its_words(webhook: Webhook, a_complete_pod: Make) -> None:
    webhook.policy.denials = (("Quota", "team has no seat left"), ("Class", "no training here"))
    response = webhook.ask("validate", a_complete_pod())
    assert response["allowed"] is False
    assert response["status"]["code"] == 403
    for part in ("team has no seat left (Quota)", "no training here (Class)", "sha256:"):
        assert part in response["status"]["message"]


def test_a_gold_image_that_a_policy_had_made_of_such_pods_is_named_after_its_own(
    webhook: Webhook, a_pod: Make
) -> None:
    pod = owned(a_pod(), *REPLICASET, labels={"app": "chat", "pod-template-hash": "5d4f"})
    seated = goldimages.seated(pod)
    assert seated is not None
    image = f"chat-{seated.version}"
    webhook.view.images.add(("models", image))
    webhook.view.deployments[("models", "chat")] = 5
    webhook.view.known[("models", "deployment.chat")] = ("c2",)
    assert annotations_of(webhook.patch(pod))[names.RESTORE_FROM] == image
    webhook.view.deployments[("models", "chat")] = 1
    assert annotations_of(webhook.patch(pod))[names.RESTORE_FROM] == f"c2,{image}"
    pod["spec"]["containers"][0]["image"] = "model:2"
    assert annotations_of(webhook.patch(pod))[names.RESTORE_FROM] == "c2"


def test_gold_images_of_other_namespaces_are_policys_to_share(
    webhook: Webhook, a_complete_pod: Make
) -> None:
    webhook.policy.shared = frozenset({("base", "models")})
    mine = a_complete_pod(restore_from="own, models/own-too, base/llama")
    assert webhook.ask("validate", mine)["allowed"] is True
    asked = [one for one in webhook.policy.asked if isinstance(one, SharingQuestion)]
    assert asked == [SharingQuestion(by="models", namespace="base", name="llama")]
    response = webhook.ask("validate", a_complete_pod(restore_from="base/llama, other/llama"))
    assert (response["allowed"], response["status"]["code"]) == (False, 403)
    words = "gold image other/llama is not shared with namespace models (NotShared)"
    assert words in response["status"]["message"]


def test_without_a_word_of_policy_nothing_is_shared(webhook: Webhook, a_complete_pod: Make) -> None:
    webhook.policy.shared = frozenset({("base", "models")})
    no_word = Refusal(reason=Reason.POLICY_UNAVAILABLE, detail="kyb.sharing.verdict is undefined")
    webhook.policy.say(SharingVerdict, no_word)
    response = webhook.ask("validate", a_complete_pod(restore_from="base/llama"))
    assert response["allowed"] is False
    assert "kyb.sharing.verdict is undefined (NoVerdict)" in response["status"]["message"]


def test_without_policy_mutation_is_open_and_validation_closed_with_the_reason(
    webhook: Webhook, a_pod: Make, a_complete_pod: Make
) -> None:
    webhook.policy.away = True
    paths = [op["path"] for op in webhook.patch(a_pod())]
    assert paths == ["/spec/runtimeClassName", "/spec/containers/0/env"]
    status = webhook.ask("validate", a_complete_pod())["status"]
    assert (status["code"], status["reason"]) == (503, "ServiceUnavailable")
    assert "policy" in status["message"]


def test_a_broken_view_lets_mutation_through_and_refuses_seat_pods_only(
    webhook: Webhook, a_pod: Make, a_complete_pod: Make, a_container: Make
) -> None:
    webhook.view.broken = True
    assert webhook.ask("mutate", a_pod()) == {"uid": "u", "allowed": True}
    assert webhook.ask("validate", a_complete_pod())["status"]["code"] == 500
    assert webhook.ask("validate", a_pod(a_container()))["allowed"] is True
    assert b'outcome="failed",verb="validate"} 1.0' in webhook.metrics.text()


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param({"spec": None}, id="no-spec"),
        pytest.param({"spec": {"containers": "many"}}, id="containers-are-a-text"),
        pytest.param({"spec": {"containers": [7, None, {}]}}, id="containers-are-numbers"),
        pytest.param(
            {"metadata": [], "spec": {"containers": [{"resources": {"limits": {SEAT: {}}}}]}},
            id="a-seat-amid-rubbish",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["mutate", "validate"])
def test_rubbish_in_a_pod_is_answered_and_never_an_error(
    webhook: Webhook, verb: str, pod: Any
) -> None:
    webhook.ask(verb, pod)


def test_what_is_no_review_is_a_bad_request_that_says_why(webhook: Webhook) -> None:
    answer = webhook.client.post("/validate", data=b"{}")
    assert answer.status_code == 400
    assert "AdmissionReview" in answer.text


def test_a_body_beyond_the_limit_is_turned_away(webhook: Webhook) -> None:
    answer = webhook.client.post("/mutate", data=b" " * (routes.LARGEST_BODY + 1))
    assert answer.status_code == 413


def test_other_paths_and_verbs_are_answered_in_one_line(webhook: Webhook) -> None:
    assert webhook.client.get("/mutate").status_code == 405
    assert webhook.client.get("/nowhere").status_code == 404
    assert webhook.client.get("/healthz").status_code == 200
    assert webhook.client.get("/readyz").status_code == 200
    assert b"kyb_admission" in webhook.client.get("/metrics").data


def owned(pod: dict[str, Any], kind: str, api: str, owner: str, **metadata: Any) -> dict[str, Any]:
    reference = {"apiVersion": api, "kind": kind, "name": owner, "controller": True}
    return {**pod, "metadata": {**pod["metadata"], "ownerReferences": [reference], **metadata}}


@pytest.mark.parametrize(
    ("kind", "api", "owner", "metadata", "workload"),
    [
        pytest.param(
            "StatefulSet", "apps/v1", "llama", {"name": "llama-3"}, "statefulset.llama.3",
            id="ordinal-of-a-statefulset",
        ),
        pytest.param(
            "Job", "batch/v1", "train",
            {"annotations": {"batch.kubernetes.io/job-completion-index": "7"}}, "job.train.7",
            id="index-of-a-job",
        ),
        pytest.param(
            "ReplicaSet", "apps/v1", "chat-5d4f", {"labels": {"pod-template-hash": "5d4f"}},
            "deployment.chat", id="deployment-of-one",
        ),
    ],
)  # fmt: skip
def test_a_workload_that_comes_again_is_offered_its_own_checkpoints(
    webhook: Webhook,
    a_pod: Make,
    kind: str,
    api: str,
    owner: str,
    metadata: dict[str, Any],
    workload: str,
) -> None:
    webhook.view.deployments[("models", "chat")] = 1
    webhook.view.known[("models", workload)] = ("c4", "c3", "c2", "c1")
    patch = webhook.patch(owned(a_pod(), kind, api, owner, **metadata))
    assert annotations_of(patch)[names.RESTORE_FROM] == "c4,c3,c2"


REPLICASET = ("ReplicaSet", "apps/v1", "chat-5d4f")
TEMPLATED = {"labels": {"pod-template-hash": "5d4f"}}


@pytest.mark.parametrize("replicas", [None, 0, 1])
def test_a_checkpoint_that_was_asked_for_comes_before_the_newest(
    webhook: Webhook, a_pod: Make, replicas: int | None
) -> None:
    """The Deployment is scaled meanwhile, and the watch may still show it as it was."""
    if replicas is not None:
        webhook.view.deployments[("models", "chat")] = replicas
    webhook.view.known[("models", "deployment.chat")] = ("c4", "c3")
    webhook.view.wanted[("models", "Deployment", "chat")] = ("c3",)
    patch = webhook.patch(owned(a_pod(), *REPLICASET, **TEMPLATED))
    assert annotations_of(patch)[names.RESTORE_FROM] == ("c3,c4" if replicas == 1 else "c3")


@pytest.mark.parametrize(("replicas", "offered"), [(0, "c4"), (1, "c4"), (2, None)])
def test_the_pod_of_one_that_comes_back_from_zero_wakes_though_the_watch_shows_zero_still(
    webhook: Webhook, a_pod: Make, replicas: int, offered: str | None
) -> None:
    webhook.view.deployments[("models", "chat")] = replicas
    webhook.view.known[("models", "deployment.chat")] = ("c4",)
    pod = owned(a_pod(), *REPLICASET, **TEMPLATED)
    annotations = pod["metadata"].setdefault("annotations", {})
    annotations[names.SCALE_TO_ZERO] = "checkpoint"
    patch = webhook.patch(pod)
    assert annotations_of(patch).get(names.RESTORE_FROM) == offered


@pytest.mark.parametrize(("pod", "offered"), [("llama-2", "c7,c8"), ("llama-1", "other")])
def test_a_pod_of_a_statefulset_is_offered_its_own_state_only(
    webhook: Webhook, a_pod: Make, pod: str, offered: str
) -> None:
    webhook.view.known[("models", "statefulset.llama.2")] = ("c8", "c7")
    webhook.view.known[("models", "statefulset.llama.1")] = ("other",)
    webhook.view.wanted[("models", "StatefulSet", "llama")] = ("c7",)
    patch = webhook.patch(owned(a_pod(), "StatefulSet", "apps/v1", "llama", name=pod))
    assert annotations_of(patch)[names.RESTORE_FROM] == offered


@pytest.mark.parametrize(
    ("kind", "api", "owner", "metadata"),
    [
        pytest.param("ReplicaSet", "apps/v1", "chat-5d4f",
                     {"labels": {"pod-template-hash": "5d4f"}}, id="deployment-of-two"),
        pytest.param("ReplicaSet", "apps/v1", "alone", {}, id="a-replicaset-of-its-own"),
        pytest.param("Job", "batch/v1", "train", {}, id="a-job-without-index"),
        pytest.param("StatefulSet", "apps/v1", "llama", {"name": "llama-x"}, id="no-ordinal"),
        pytest.param("StatefulSet", "example.com/v1", "llama", {"name": "llama-0"},
                     id="somebody-elses-kind"),
    ],
)  # fmt: skip
def test_pods_that_are_all_alike_are_offered_nothing(
    webhook: Webhook, a_pod: Make, kind: str, api: str, owner: str, metadata: dict[str, Any]
) -> None:
    webhook.view.deployments[("models", "chat")] = 2
    every = ("deployment.chat", "job.train.0", "statefulset.llama.0", "statefulset.llama.x")
    webhook.view.known |= {("models", workload): ("c",) for workload in every}
    patch = webhook.patch(owned(a_pod(), kind, api, owner, **metadata))
    assert names.RESTORE_FROM not in annotations_of(patch)
