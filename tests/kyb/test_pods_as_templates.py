"""What of a pod goes into the template of one like it, and what the cluster gives anew."""

from typing import Any

import pytest

from kyb import templates
from kybernate.api import names
from kybernate.api.errors import Malformed
from kybernate.testing.builders import a_pod

TOKEN = {"name": "kube-api-access-x7", "projected": {}}
MODELS = {"name": "models", "emptyDir": {}}


def test_what_the_cluster_gave_is_left_out_and_the_rest_is_kept() -> None:
    mounts = [{"name": "models", "mountPath": "/m"}, {"name": TOKEN["name"], "mountPath": "/t"}]
    given: dict[str, Any] = a_pod(
        labels={"app": "llama", "pod-template-hash": "7d9f", names.RESTORE_REQUEST: "u"},
        annotations={names.VRAM: "40Gi", names.SEAT: "G0/1", names.RESTORE_FROM: "older"},
        spec={"nodeName": "node-a", "priority": 7, "volumes": [MODELS, TOKEN], "hostname": "x"},
    )
    given["spec"]["containers"][0]["volumeMounts"] = mounts
    template = templates.of_pod(given)
    assert template["metadata"] == {
        "labels": {"app": "llama"},
        "annotations": {names.VRAM: "40Gi"},
    }
    assert template["spec"].keys() == {"containers", "volumes"}
    assert template["spec"]["volumes"] == [MODELS]
    assert template["spec"]["containers"][0]["volumeMounts"] == mounts[:1]


def test_a_deployment_gives_its_template() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "m"}]}}
    found = templates.of_document({"kind": "Deployment", "spec": {"template": template}}, "f.yaml")
    assert found["metadata"]["labels"] == {"a": "b"}
    assert found["spec"] == template["spec"]


@pytest.mark.parametrize("document", [None, "words", [1], {"kind": "Pod"}, {"spec": {"a": 1}}])
def test_what_is_no_pod_is_refused_by_the_files_name(document: object) -> None:
    with pytest.raises(Malformed, match=r"f\.yaml"):
        templates.of_document(document, "f.yaml")
