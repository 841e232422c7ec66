"""
An API server in memory, and a `Kube` that talks to it.

    kube = FakeKube(a_pod("llama-a"), a_gpunode())     # objects that are there, status included
    kube.outage()                                      # from here: Unavailable, watches break
    kube.fail("PATCH", "gpuworkloads", Conflict(...))  # once

It is the real `Kube` over another transport, so paths, queries and bodies are the real ones; it
passes the same contract suite as the real client. `fakehttp.py` serves the same over HTTP.
"""

import re
from collections.abc import Iterator, Mapping
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
from kybernate.testing.fakestore import Entry, FakeStore, Key, Kind, Obj
from kybernate.testing.selectors import Matches, selector

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?"
)
_KNOWN = {found.kind: found for found in vars(resources).values() if isinstance(found, Resource)}
_BEAT_S = 1.0  # how often a waiting watch looks whether its time is over


class _Target:
    """What a path is about."""

    def __init__(self, path: str) -> None:
        found = _PATH.fullmatch(path)
        if found is None:
            raise ApiError(404, "NotFound", f"the server has no {path}")
        self.group = found["group"] or ""
        self.version = found["version"]
        namespace, plural = found["namespace"] or "", found["plural"]
        self.name, self.subresource = found["name"] or "", found["subresource"] or ""
        if plural == "status" and not self.group:  # /api/v1/namespaces/NAME/status
            self.name, self.subresource, namespace, plural = namespace, plural, "", "namespaces"
        self.namespace = namespace
        self.kind: Kind = (self.group, plural)

    @property
    def key(self) -> Key:
        return self.namespace, self.name


class FakeApiServer:
    """Answers requests. A `Transport`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.store = FakeStore(clock or FakeClock())
        self.requests: list[Request] = []  # everything that was asked, in order
        self.available = True
        self._faults: list[tuple[str, str, ApiError]] = []
        self._applied: dict[tuple[Kind, Key, str, str], Any] = {}
        self._open: list[_MemoryLines] = []

    def send(self, request: Request) -> Answer:
        """The answer. Raises Unavailable in an outage."""
        self.requests.append(request)
        try:
            self._check(request)
            target = _Target(request.path)
            return Answer(200, orjson.dumps(self._serve(request, target)))
        except ApiError as problem:
            return self._refuse(problem)

    def stream(self, request: Request) -> Answer | Lines:
        """A watch. Raises Unavailable in an outage."""
        self.requests.append(request)
        try:
            self._check(request)
            lines = _MemoryLines(self, _Target(request.path), request.query)
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
        return Answer(problem.status, orjson.dumps(_status(problem)))

    def _serve(self, request: Request, target: _Target) -> Obj:
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

    def _list(self, target: _Target, query: Mapping[str, str]) -> Obj:
        matches = _matches(query)
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

    def _patch(self, request: Request, target: _Target, body: Any) -> Obj:
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

    def _apply(self, target: _Target, body: Obj, manager: str) -> Obj:
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


class _MemoryLines:
    """One watch: the history from a version on, as lines of JSON."""

    def __init__(self, server: FakeApiServer, target: _Target, query: Mapping[str, str]) -> None:
        self._store = server.store
        self._target = target
        self._matches = _matches(query)
        self._bookmarks = query.get("allowWatchBookmarks") == "true"
        self._closed = self._broken = False
        version = query.get("resourceVersion") or "0"
        self._from_now = version == "0"
        self._version = int(version)
        self._gone = not self._from_now and self._version < self._store.compacted

    def __iter__(self) -> Iterator[bytes]:
        if self._gone:
            yield _line("ERROR", _status(Gone(410, "Expired", "too old resource version")))
            return
        if self._from_now:
            yield from self._present()
        seen = 0
        while True:
            with self._store.changed:
                while not self._ended() and seen >= len(self._store.history):
                    self._store.changed.wait(_BEAT_S)
                if self._ended():
                    break
                fresh = self._store.history[seen:]
                seen += len(fresh)
            for entry in fresh:
                yield from self._render(entry)
        if self._broken:
            raise Unavailable(0, "Network", "the watch broke")

    def close(self) -> None:
        self._closed = True
        self._notify()

    def break_off(self) -> None:
        self._broken = True
        self._notify()

    def _ended(self) -> bool:
        return self._closed or self._broken

    def _notify(self) -> None:
        with self._store.changed:
            self._store.changed.notify_all()

    def _present(self) -> Iterator[bytes]:
        with self._store.changed:
            self._version = self._store.version
            found = self._store.all(self._target.kind, self._target.namespace)
        for obj in found:
            if self._matches(obj):
                yield _line("ADDED", obj)

    def _render(self, entry: Entry) -> Iterator[bytes]:
        if entry.kind is None:
            if self._bookmarks:
                yield _line("BOOKMARK", {"metadata": {"resourceVersion": str(entry.version)}})
            return
        elsewhere = self._target.namespace not in ("", entry.key[0])
        if entry.version <= self._version or entry.kind != self._target.kind or elsewhere:
            return
        before = entry.old is not None and self._matches(entry.old)
        after = entry.new is not None and self._matches(entry.new)
        if after and entry.new is not None:
            yield _line("MODIFIED" if before else "ADDED", entry.new)
        elif before and entry.old is not None:
            # The last state, at the version of its end.
            metadata = {**entry.old["metadata"], "resourceVersion": str(entry.version)}
            yield _line("DELETED", {**entry.old, "metadata": metadata})


def _line(kind: str, obj: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"type": kind, "object": obj})


def _matches(query: Mapping[str, str]) -> Matches:
    return selector(query.get("labelSelector"), query.get("fieldSelector"))


def _continued(token: str | None, version: str, compacted: int) -> tuple[int, str]:
    if not token:
        return 0, version
    start, _, first = token.partition("@")
    if int(first) < compacted:
        raise Gone(410, "Expired", "the continue token is too old")
    return int(start), first


def _status(problem: ApiError) -> Obj:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": problem.status,
        "reason": problem.reason,
        "message": problem.message,
        "details": dict(problem.details),
    }
