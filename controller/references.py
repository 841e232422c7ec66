"""Who names a checkpoint: pods and templates that wake from it, requests that are not finished.

Called by: `retiring`. Projections of watched objects, pure; what cannot be read names nothing, and
is told by its own part.
"""

from collections.abc import Mapping
from typing import Any

from kybernate.api import goldimages, names, pods
from kybernate.api.goldimages import Seated
from kybernate.api.restorerequests import read_request
from kybernate.api.tierplacements import read_placement


def of_pod(obj: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Checkpoints a pod may wake from; None for one that names none, or has ended."""
    return None if pods.is_finished(obj) else _named(obj)


def living(obj: Mapping[str, Any]) -> Seated | None:
    """A seat pod that has not ended: a gold image of its version is needed."""
    return None if pods.is_finished(obj) else goldimages.seated(obj)


def of_deployment(obj: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Checkpoints its next pod may wake from."""
    return _named(obj["spec"]["template"])


def of_restore(obj: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The checkpoint of a request that is not finished."""
    request = read_request(obj)
    return None if request.status.is_finished else (request.checkpoint,)


def of_placement(obj: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The checkpoint a TierPlacement is about."""
    return (read_placement(obj).checkpoint,)


def _named(obj: Mapping[str, Any]) -> tuple[str, ...] | None:
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    given = str(annotations.get(names.RESTORE_FROM, ""))
    found = tuple(name.strip() for name in given.split(",") if name.strip())
    return found or None
