"""
What a request is about, and one watch in memory. Part of the fake API server.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from kybernate.clients.errors import ApiError, Gone, Unavailable
from kybernate.testing.fakestore import Entry, FakeStore, Key, Kind, Obj
from kybernate.testing.selectors import Matches, selector

_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[^/]+))?"
)
_BEAT_S = 1.0  # a safety net: every change and every end wakes a waiting watch


class Target:
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
        """(namespace, name)."""
        return self.namespace, self.name


class MemoryLines:
    """One watch: the history from a version on, as lines of JSON."""

    def __init__(self, store: FakeStore, target: Target, query: Mapping[str, str]) -> None:
        self._store = store
        self._target = target
        self._matches = matching(query)
        self._bookmarks = query.get("allowWatchBookmarks") == "true"
        self._closed = self._broken = False
        version = query.get("resourceVersion") or "0"
        self._from_now = version == "0"
        self._version = int(version)
        self._gone = not self._from_now and self._version < self._store.compacted

    def __iter__(self) -> Iterator[bytes]:
        if self._gone:
            yield _line("ERROR", status_of(Gone(410, "Expired", "too old resource version")))
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
        """An orderly end."""
        self._closed = True
        self._notify()

    def break_off(self) -> None:
        """The reader gets Unavailable."""
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


def matching(query: Mapping[str, str]) -> Matches:
    """Whether an object is selected by the query of a list or watch."""
    return selector(query.get("labelSelector"), query.get("fieldSelector"))


def status_of(problem: ApiError) -> Obj:
    """The metav1.Status of an error."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": problem.status,
        "reason": problem.reason,
        "message": problem.message,
        "details": dict(problem.details),
    }
