"""
An API server in memory, and a `Kube` that talks to it.

    kube = FakeKube(a_pod("llama-a"), a_gpunode())     # objects that are there, status included
    kube.outage()                                      # from here: Unavailable, watches break
    kube.fail("PATCH", "gpuworkloads", Conflict(...))  # once

It is the real `Kube` over another transport, so paths, queries and bodies are the real ones; it
passes the same contract suite as the real client. `fakehttp.py` serves the same over HTTP.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from kybernate.clients import resources
from kybernate.clients.clock import Clock
from kybernate.clients.connection import Answer, Lines, Request
from kybernate.clients.errors import ApiError, Gone, Invalid, Unavailable
from kybernate.clients.kube import Kube, PatchKind
from kybernate.clients.resources import Resource
from kybernate.testing import patches
from kybernate.testing.clock import FakeClock
from kybernate.testing.fakestore import FakeStore, Key, Kind, Obj
from kybernate.testing.fakewatch import MemoryLines, Target, matching, status_of

_KNOWN = {found.kind: found for found in vars(resources).values() if isinstance(found, Resource)}


class FakeApiServer:
    """Answers requests. A `Transport`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.store = FakeStore(clock or FakeClock())
        self.requests: list[Request] = []  # everything that was asked, in order
        self.available = True
        self._faults: list[tuple[str, str, ApiError]] = []
        self._applied: dict[tuple[Kind, Key, str, str], Any] = {}
        self._open: list[MemoryLines] = []

    def send(self, request: Request) -> Answer:
        """The answer. Raises Unavailable in an outage."""
        self.requests.append(request)
        try:
            self._check(request)
            target = Target(request.path)
            return Answer(200, orjson.dumps(self._serve(request, target)))
        except ApiError as problem:
            return self._refuse(problem)

    def stream(self, request: Request) -> Answer | Lines:
        """A watch. Raises Unavailable in an outage."""
        self.requests.append(request)
        try:
            self._check(request)
            lines = MemoryLines(self.store, Target(request.path), request.query)
        except ApiError as problem:
            return self._refuse(problem)
        self._open.append(lines)
        return lines

    def close(self) -> None:
        """Nothing is kept."""

    def fail(self, method: str, plural: str, problem: ApiError, times: int = 1) -> None:
        """The next requests of this method to this resource fail so."""
        self._faults += [(method, plural, problem)] * times

    def set_available(self, available: bool) -> None:
        """Begin or end an outage; at its begin, open watches break."""
        self.available = available
        if not available:
            self.break_watches()

    def break_watches(self) -> None:
        """As when a connection is reset."""
        broken, self._open = self._open, []
        for lines in broken:
            lines.break_off()

    def _check(self, request: Request) -> None:
        if not self.available:
            raise Unavailable(0, "Network", "the fake API server is away")
        for fault in self._faults:
            method, plural, problem = fault
            if request.method == method and plural in request.path.split("/"):
                self._faults.remove(fault)
                raise problem

    def _refuse(self, problem: ApiError) -> Answer:
        if problem.status == 0:
            raise problem
        return Answer(problem.status, orjson.dumps(status_of(problem)))

    def _serve(self, request: Request, target: Target) -> Obj:
        body: Any = orjson.loads(request.body) if request.body else {}
        match request.method:
            case "GET" if target.name:
                return self.store.get(target.kind, target.key)
            case "GET":
                return self._list(target, request.query)
            case "POST":
                return self.store.create(target.kind, target.namespace, body)
            case "PUT":
                return self.store.update(
                    target.kind, target.key, target.subresource, lambda _: body
                )
            case "PATCH":
                return self._patch(request, target, body)
            case "DELETE":
                return self.store.delete(target.kind, target.key, body)
        raise ApiError(405, "MethodNotAllowed", request.method)

    def _list(self, target: Target, query: Mapping[str, str]) -> Obj:
        matches = matching(query)
        with self.store.changed:
            found = self.store.all(target.kind, target.namespace)
            version = str(self.store.version)
        found = [obj for obj in found if matches(obj)]
        start, version = _continued(query.get("continue"), version, self.store.compacted)
        end = start + int(query.get("limit") or len(found) or 1)
        metadata = {"resourceVersion": version}
        if end < len(found):
            metadata["continue"] = f"{end}@{version}"
        return {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": found[start:end]}

    def _patch(self, request: Request, target: Target, body: Any) -> Obj:
        manager = request.query.get("fieldManager", "")
        if request.content_type == PatchKind.APPLY:
            return self._apply(target, body, manager)

        def change(old: Obj) -> Obj:
            if request.content_type == PatchKind.MERGE:
                return dict(patches.merge(old, body))
            return dict(patches.json_patch(old, body))

        try:
            return self.store.update(target.kind, target.key, target.subresource, change)
        except patches.CannotApply as problem:
            raise Invalid(422, "Invalid", str(problem)) from problem

    def _apply(self, target: Target, body: Obj, manager: str) -> Obj:
        owned = (target.kind, target.key, target.subresource, manager)
        before = self._applied.get(owned, {})
        body = patches.merge(body, {"metadata": {"name": target.name}})
        try:
            new = self.store.update(
                target.kind,
                target.key,
                target.subresource,
                lambda old: dict(patches.apply(old, body, before)),
            )
        except ApiError as problem:
            if problem.status != 404 or target.subresource:
                raise
            new = self.store.create(target.kind, target.namespace, body)
        self._applied[owned] = body
        return new


class FakeKube(Kube):
    """A `Kube` for tests. Objects given are there from the beginning, as they are."""

    def __init__(
        self, *objects: Mapping[str, Any], clock: Clock | None = None, namespace: str = "default"
    ) -> None:
        self.server = FakeApiServer(clock)
        super().__init__(self.server, namespace=namespace)
        self.seed(*objects)

    def seed(self, *objects: Mapping[str, Any]) -> None:
        """Put objects there as they are, status included, over what has their name."""
        for obj in objects:
            resource = _KNOWN[obj["kind"]]
            namespace = obj["metadata"].get("namespace", "default") if resource.namespaced else ""
            self.server.store.seed((resource.group, resource.plural), namespace, dict(obj))

    def outage(self) -> None:
        """From now on everything is Unavailable, and open watches break."""
        self.server.set_available(False)

    def recover(self) -> None:
        """The end of the outage."""
        self.server.set_available(True)

    def fail(self, method: str, plural: str, problem: ApiError, times: int = 1) -> None:
        """The next requests of this method ("GET") to this resource ("pods") fail so."""
        self.server.fail(method, plural, problem, times)

    def bookmark(self) -> None:
        """Send a bookmark to every watch."""
        self.server.store.bookmark()

    def compact(self) -> None:
        """Forget old versions, and break the watches: whoever is behind gets 410."""
        self.server.store.compact()
        self.server.break_watches()

    @property
    def asked(self) -> list[str]:
        """What was asked so far: `"PATCH /api/v1/..."`."""
        return [f"{request.method} {request.path}" for request in self.server.requests]

    def asked_of(self, *methods: str) -> list[str]:
        """The same, of these methods only."""
        return [asked for asked in self.asked if asked.split()[0] in methods]


def _continued(token: str | None, version: str, compacted: int) -> tuple[int, str]:
    if not token:
        return 0, version
    start, _, first = token.partition("@")
    if int(first) < compacted:
        raise Gone(410, "Expired", "the continue token is too old")
    return int(start), first
