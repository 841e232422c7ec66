"""What becomes of a request, written to its status, and its removal once it was kept long enough.

Called by: `checkpointing`, `restoring`. Rule: only the life of the request that was looked at is
written to or removed; one that is gone meanwhile needs no answer.
"""

from collections.abc import Mapping
from typing import Any

from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Key
from kybernate.clients.resources import Resource
from kybernate.runtime.logs import get_logger


class Answers:
    """For one kind of requests."""

    def __init__(self, kube: Kube, resource: Resource) -> None:
        self._kube, self._resource = kube, resource
        self._log = get_logger(requests=resource.plural)

    def write(self, key: Key, uid: str, status: Mapping[str, Any]) -> None:
        """Merge this into the status. Raises ApiError."""
        namespace, name = key
        patch = {"metadata": {"uid": uid}, "status": dict(status)}
        try:
            self._kube.patch(self._resource, name, patch, namespace, subresource="status")
        except NotFound:
            self._log.info("deleted meanwhile", request=f"{namespace}/{name}")

    def remove(self, key: Key, uid: str) -> None:
        """Delete the finished request. Raises ApiError."""
        namespace, name = key
        try:
            self._kube.delete(self._resource, name, namespace, uid=uid)
        except NotFound:
            self._log.info("deleted before", request=f"{namespace}/{name}")
