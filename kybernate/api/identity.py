"""
Whose checkpoint may a new pod wake from? The identity that outlives pods, read from a pod.

Called by: the webhook (naming candidates) and whoever seals a checkpoint, whose
`GpuCheckpoint.spec.workload` holds this text. Rule: identity is the controller's owner plus its
ordinal or index, or a Deployment of one; every other pod has none, and wakes only from checkpoints
named by hand. Rule: the kind stands in front, so that the pod `llama-0` of a StatefulSet is never
taken for a Deployment of that name.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
TEMPLATE_HASH = "pod-template-hash"

_ORDINAL = re.compile(r"-(0|[1-9]\d{0,9})", re.ASCII)

Replicas = Callable[[str, str], int | None]  # (namespace, Deployment) -> replicas; None: unknown


def of_pod(pod: Mapping[str, Any], namespace: str, replicas: Replicas) -> str | None:
    """`statefulset.llama.0`, `job.train.3`, `deployment.chat`, or None."""
    metadata = pod.get("metadata") or {}
    owner = _controller(metadata)
    match owner.get("kind"), str(owner.get("apiVersion", "")).partition("/")[0]:
        case "StatefulSet", "apps":
            return _of_ordinal(metadata, owner["name"])
        case "Job", "batch":
            index = (metadata.get("annotations") or {}).get(COMPLETION_INDEX)
            return None if index is None else f"job.{owner['name']}.{index}"
        case "ReplicaSet", "apps":
            return _of_deployment(metadata, owner["name"], namespace, replicas)
    return None


def owner_of(pod: Mapping[str, Any]) -> tuple[str, str] | None:
    """Whose pod it is, alone or not: ("Deployment", "chat"), ("StatefulSet", "llama"), or None."""
    metadata = pod.get("metadata") or {}
    owner = _controller(metadata)
    match owner.get("kind"), str(owner.get("apiVersion", "")).partition("/")[0]:
        case "StatefulSet", "apps":
            return "StatefulSet", str(owner["name"])
        case "ReplicaSet", "apps":
            deployment = _deployment(metadata, owner["name"])
            return None if deployment is None else ("Deployment", deployment)
    return None


def _controller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    owners = metadata.get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller") is True), {})


def _of_ordinal(metadata: Mapping[str, Any], owner: str) -> str | None:
    ordinal = _ORDINAL.fullmatch(metadata.get("name", "").removeprefix(owner))
    return f"statefulset.{owner}.{ordinal[1]}" if ordinal else None


def _of_deployment(
    metadata: Mapping[str, Any], replica_set: str, namespace: str, replicas: Replicas
) -> str | None:
    deployment = _deployment(metadata, replica_set)
    alone = deployment is not None and replicas(namespace, deployment) == 1
    return f"deployment.{deployment}" if alone else None


def _deployment(metadata: Mapping[str, Any], replica_set: str) -> str | None:
    """None for a ReplicaSet of its own: its pods are alike, none has an identity."""
    template = (metadata.get("labels") or {}).get(TEMPLATE_HASH)
    if not template or not replica_set.endswith(f"-{template}"):
        return None
    return replica_set.removesuffix(f"-{template}")
