"""
The Kubernetes API as plain dicts: get, list, create, replace, patch, delete, watch.

Called by: everything that talks to the API server. Rules: objects are what the server sent, as
`dict`; an answer of 400 and above is one of `errors.py`; no caching (that is `reflector.py`); safe
for several threads.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict, Unpack

import orjson

from kybernate.clients import errors, kubeconfig
from kybernate.clients.connection import Answer, HttpTransport, Lines, Request, Transport
from kybernate.clients.kubeconfig import Access
from kybernate.clients.resources import Resource

Obj = dict[str, Any]
Objects = list[Obj]

PAGE = 500  # objects per list request: client-go's own choice
_MANAGER = "kybernate"


class PatchKind(StrEnum):
    """The media type of a patch."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"  # JSON is YAML; conflicts are forced


class Selectors(TypedDict, total=False):
    """Which objects: `field_selector="spec.nodeName=node-a"`, `label_selector="app=x"`."""

    field_selector: str | None
    label_selector: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `resource_version` is the whole list's: where a watch goes on."""

    items: Objects
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`kind` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    obj: Obj


class Watch:
    """An open watch. Iterate in one thread; `close` from any other ends it promptly."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[WatchEvent]:
        """Ends when the server ends it. Raises Gone (list again), Unavailable, or an ApiError."""
        for line in self._lines:
            try:
                document = orjson.loads(line)
                kind, obj = document["type"], document["object"]
            except (ValueError, KeyError, TypeError) as problem:
                raise errors.Unavailable(0, "BadStream", f"unreadable event: {problem}") from None
            if kind == "ERROR":
                raise errors.from_status(int(obj.get("code") or 500), obj)
            yield WatchEvent(kind, obj)

    def close(self) -> None:
        """End it."""
        self._lines.close()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Kube:
    """A client of one API server."""

    def __init__(self, transport: Transport, *, namespace: str = "default") -> None:
        self._transport = transport
        self.namespace = namespace  # of the context or the service account
        self._timeout = 30.0  # seconds without a byte; the API server answers or gives up in 60
        self._once = False

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Kube":
        """Who the file says we are. Raises BadKubeconfig (a Refused)."""
        return cls.of(kubeconfig.read(Path(path)))

    @classmethod
    def in_cluster(cls) -> "Kube":
        """The service account of this pod. Raises BadKubeconfig outside of a cluster."""
        return cls.of(kubeconfig.in_cluster())

    @classmethod
    def connect(cls, path: Path | None) -> "Kube":
        """The `--kubeconfig` of every process: the file, or in-cluster where none is given."""
        return cls.in_cluster() if path is None else cls.from_kubeconfig(path)

    @classmethod
    def of(cls, access: Access) -> "Kube":
        """With this access."""
        return cls(HttpTransport(access), namespace=access.namespace)

    def within(self, seconds: float) -> "Kube":
        """The same connections for somebody in a hurry: one try, no longer than this per read."""
        hurried = Kube(self._transport, namespace=self.namespace)
        hurried._timeout = seconds
        hurried._once = True
        return hurried

    def close(self) -> None:
        """Let go of idle connections."""
        self._transport.close()

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """One object. Raises NotFound, ApiError."""
        return self._json("GET", resource.path(namespace, name))

    def list(
        self, resource: Resource, namespace: str | None = None, **selectors: Unpack[Selectors]
    ) -> Objects:
        """All objects, fetched in pages. Raises ApiError."""
        pages = self.pages(resource, namespace, **selectors)
        return [obj for page in pages for obj in page.items]

    def pages(
        self, resource: Resource, namespace: str | None = None, **selectors: Unpack[Selectors]
    ) -> Iterator[Page]:
        """The same, page by page. Raises Gone where the list took longer than it stays valid."""
        query = _query(selectors) | {"limit": str(PAGE)}
        while True:
            answer = self._json("GET", resource.path(namespace), query)
            metadata = answer.get("metadata") or {}
            yield Page(answer.get("items") or [], metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    def create(
        self, resource: Resource, obj: Mapping[str, Any], namespace: str | None = None
    ) -> Obj:
        """What the server made of it. Raises AlreadyExists, Invalid, ApiError."""
        namespace = namespace or obj.get("metadata", {}).get("namespace")
        path = resource.path(_needed(resource, namespace))
        return self._json("POST", path, body=_complete(resource, obj))

    def replace(
        self, resource: Resource, obj: Mapping[str, Any], subresource: str | None = None
    ) -> Obj:
        """Write the whole object. Raises Conflict where its resourceVersion is not the newest."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return self._json("PUT", path, body=_complete(resource, obj))

    def patch(  # noqa: PLR0913 - each is part of the API's own vocabulary
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        kind: PatchKind = PatchKind.MERGE,
        subresource: str | None = None,
        field_manager: str | None = None,
    ) -> Obj:
        """The object afterwards. A `metadata.resourceVersion` in a merge makes it conditional.

        APPLY creates what is not there. Raises NotFound, Conflict, Invalid, ApiError.
        """
        query = {"fieldManager": field_manager} if field_manager else {}
        if kind is PatchKind.APPLY:
            query = {"fieldManager": field_manager or _MANAGER, "force": "true"}
            body = _complete(resource, body)
        path = resource.path(namespace, name, subresource)
        return self._json("PATCH", path, query, body, kind)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Ask for its end. With `uid`, only that life of it, with `resource_version` only as it
        was read (Conflict else). Raises NotFound."""
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        given = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {name: value for name, value in given.items() if value is not None}
        if preconditions:
            options["preconditions"] = preconditions
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        self._json("DELETE", resource.path(namespace, name), body=options)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        timeout_seconds: int = 300,
        silence_seconds: float = 90.0,
        **selectors: Unpack[Selectors],
    ) -> Watch:
        """Changes after `resource_version`, with bookmarks, until the server's timeout.

        A stream that is silent for `silence_seconds` raises Unavailable: bookmarks come every
        minute. Raises Gone, ApiError.
        """
        query = _query(selectors) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        request = Request("GET", resource.path(namespace), query, timeout=silence_seconds)
        opened = self._transport.stream(request)
        if isinstance(opened, Answer):
            raise _error(opened)
        return Watch(opened)

    def raw(self, path: str) -> bytes:
        """The body at a path that is no resource, like `/readyz`. Raises ApiError."""
        return self._send(Request("GET", path))

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Obj:
        encoded = None if body is None else orjson.dumps(body)
        answer = self._send(Request(method, path, query or {}, encoded, str(content_type)))
        try:
            decoded: Obj = orjson.loads(answer)
        except ValueError:
            raise errors.Unavailable(0, "BadAnswer", f"{method} {path}: not JSON") from None
        return decoded

    def _send(self, request: Request) -> bytes:
        answer = self._transport.send(replace(request, timeout=self._timeout, once=self._once))
        if answer.status >= 300:
            raise _error(answer)
        return answer.body


def _query(selectors: Selectors) -> dict[str, str]:
    names = {"field_selector": "fieldSelector", "label_selector": "labelSelector"}
    return {names[name]: str(value) for name, value in selectors.items() if value}


def _needed(resource: Resource, namespace: str | None) -> str | None:
    if resource.namespaced and not namespace:
        raise ValueError(f"{resource.plural}: a namespace is needed")
    return namespace


def _complete(resource: Resource, obj: Mapping[str, Any]) -> Obj:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _error(answer: Answer) -> errors.ApiError:
    try:
        body = orjson.loads(answer.body)
    except ValueError:
        body = {"message": answer.body[:500].decode(errors="replace")}
    if not isinstance(body, dict):
        body = {}
    return errors.from_status(answer.status, body, answer.retry_after)
