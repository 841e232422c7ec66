"""AdmissionReview and JSON Patch, as the API server sends and checks them."""

import base64
from typing import Any

import orjson
import pytest

from kybernate.api.errors import Malformed
from webhook import wire
from webhook.wire import Addition, Answer, Denial


def a_review(**request: Any) -> dict[str, Any]:
    base = {
        "uid": "u-1",
        "operation": "CREATE",
        "namespace": "models",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "object": {"kind": "Pod", "metadata": {}, "spec": {}},
    }
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": base | request,
    }


def test_a_review_is_read_with_the_namespace_of_the_request() -> None:
    review = wire.read_review(orjson.dumps(a_review(dryRun=True)))
    assert (review.uid, review.operation, review.namespace) == ("u-1", "CREATE", "models")
    assert review.dry_run
    assert review.pod["kind"] == "Pod"


@pytest.mark.parametrize(
    "request_members",
    [
        pytest.param({"kind": {"kind": "ConfigMap"}}, id="another-kind"),
        pytest.param({"subResource": "status"}, id="a-subresource"),
        pytest.param({"object": None}, id="a-deletion"),
    ],
)
def test_what_is_not_a_pod_itself_is_read_as_no_pod(request_members: dict[str, Any]) -> None:
    assert wire.read_review(orjson.dumps(a_review(**request_members))).pod == {}


def test_every_fault_of_a_review_is_named_at_once() -> None:
    broken = {"apiVersion": "v1", "kind": "Pod", "request": {"uid": 7, "object": []}}
    with pytest.raises(Malformed) as caught:
        wire.read_review(orjson.dumps(broken))
    paths = [fault.path for fault in caught.value.faults]
    assert paths == ["apiVersion", "kind", "request.uid", "request.operation", "request.object"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="half-a-document"),
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"request": 5}', id="request-is-a-number"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
    ],
)
def test_what_is_no_review_is_malformed_and_never_another_error(body: bytes) -> None:
    with pytest.raises(Malformed):
        wire.read_review(body)


def test_a_patch_and_its_type_come_together_and_pointers_are_escaped() -> None:
    additions = (Addition(("metadata", "annotations", "kyb.ai/a~b"), "x"),)
    response = wire.write_answer("u-1", Answer(additions=additions))["response"]
    assert response["uid"] == "u-1"
    assert response["allowed"] is True
    assert response["patchType"] == "JSONPatch"
    assert orjson.loads(base64.b64decode(response["patch"])) == [
        {"op": "add", "path": "/metadata/annotations/kyb.ai~1a~0b", "value": "x"}
    ]


def test_without_additions_there_is_neither_patch_nor_type() -> None:
    assert wire.write_answer("u", wire.ALLOWED) == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "u", "allowed": True},
    }


def test_a_denial_carries_its_words_and_no_patch() -> None:
    answer = Answer(denial=Denial(message="no", code=422, reason="Invalid"), warnings=("w",))
    assert wire.write_answer("u", answer)["response"] == {
        "uid": "u",
        "allowed": False,
        "status": {"code": 422, "reason": "Invalid", "message": "no"},
        "warnings": ["w"],
    }
