"""A pod, or anything with a pod template, as the template of a pod that is to wake. Pure.

Called by: `kyb restore`. Rule: what the cluster gave the first pod (its node, its token, its names)
is left out; the cluster gives the second its own.
"""

from collections.abc import Mapping
from typing import Any

from kybernate.api import names
from kybernate.api.errors import Fault, Malformed

_TOKEN = "kube-api-access-"  # noqa: S105 - the volume every pod is given
_GIVEN_LABELS = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "controller-revision-hash",
        "controller-uid",
        "pod-template-generation",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
        names.RESTORE_REQUEST,
    }
)
_GIVEN_ANNOTATIONS = frozenset(
    {names.SEAT, names.RESTORE_FROM, "kubectl.kubernetes.io/last-applied-configuration"}
)
_GIVEN_SPEC = frozenset(
    {
        "ephemeralContainers", "hostname", "nodeName", "overhead", "preemptionPolicy", "priority",
        "serviceAccount", "subdomain",
    }
)  # fmt: skip


def of_pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    """A pod like this one."""
    metadata = pod.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return {
        "metadata": {
            "labels": _without(labels, _GIVEN_LABELS),
            "annotations": _without(annotations, _GIVEN_ANNOTATIONS),
        },
        "spec": _spec(pod["spec"]),
    }


def of_document(document: Any, path: str) -> dict[str, Any]:
    """Of a Pod, or of what has a `spec.template`. Raises Malformed."""
    spec = document.get("spec") if isinstance(document, dict) else None
    if not isinstance(spec, dict):
        shown = document if not isinstance(document, dict) else sorted(document)
        raise Malformed([Fault(path, shown, "a Pod, or what has a pod template")])
    if isinstance(spec.get("template"), dict) and "spec" in spec["template"]:
        return of_pod(spec["template"])
    if not isinstance(spec.get("containers"), list):
        wanted = "containers, or a template that has them"
        raise Malformed([Fault(f"{path}: spec", sorted(spec), wanted)])
    return of_pod(document)


def _spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    kept = _without(spec, _GIVEN_SPEC)
    if "volumes" in kept:
        kept["volumes"] = [v for v in kept["volumes"] if not v["name"].startswith(_TOKEN)]
    for among in ("containers", "initContainers"):
        if among in kept:
            kept[among] = [_container(one) for one in kept[among]]
    return kept


def _container(container: Mapping[str, Any]) -> dict[str, Any]:
    mounts = container.get("volumeMounts")
    if mounts is None:
        return dict(container)
    kept = [mount for mount in mounts if not mount["name"].startswith(_TOKEN)]
    return {**container, "volumeMounts": kept}


def _without(given: Mapping[str, Any], names_: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names_}
