"""
Objects with the API server's rules: resourceVersion, uid, conflict, status apart, graceful end, and
the history that watches read. In memory; part of the fake API server.

Left out: admission, validation against schemas, garbage collection by owner, namespaces that must
exist. What is here is checked against the real server by `tests/clients`.
"""

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from kybernate.api import names, timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, Conflict, Invalid, NotFound

Obj = dict[str, Any]
Kind = tuple[str, str]  # (group, plural)
Key = tuple[str, str]  # (namespace, name)

_POD: Kind = ("", "pods")
_DEFAULT_GRACE_S = 30


@dataclass(frozen=True, slots=True)
class Entry:
    """One step of the history. A bookmark has no kind."""

    version: int
    kind: Kind | None = None
    key: Key = ("", "")
    old: Obj | None = None
    new: Obj | None = None


class FakeStore:
    """All objects of one server. Safe for several threads; `changed` is notified at each write."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._objects: dict[Kind, dict[Key, Obj]] = {}
        self._serial = 0
        self.version = 10
        self.history: list[Entry] = []
        self.compacted = 10  # watches from before this version are refused
        self.changed = threading.Condition(threading.RLock())

    def get(self, kind: Kind, key: Key) -> Obj:
        """Raises NotFound."""
        with self.changed:
            found = self._objects.get(kind, {}).get(key)
        if found is None:
            raise NotFound(404, "NotFound", f'{kind[1]} "{key[1]}" not found')
        return found

    def all(self, kind: Kind, namespace: str) -> list[Obj]:
        """In order of key, as etcd has them; namespace "" means of all."""
        with self.changed:
            found = sorted(self._objects.get(kind, {}).items())
        return [obj for key, obj in found if namespace in ("", key[0])]

    def create(self, kind: Kind, namespace: str, obj: Obj) -> Obj:
        """Raises AlreadyExists, Invalid."""
        obj = deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        with self.changed:
            self._serial += 1
            if not metadata.get("name"):
                if not metadata.get("generateName"):
                    raise Invalid(422, "Invalid", "metadata.name: Required value")
                metadata["name"] = f"{metadata['generateName']}{self._serial:05x}"
            if metadata.get("resourceVersion"):
                text = "resourceVersion should not be set on objects to be created"
                raise Invalid(400, "BadRequest", text)
            key = (namespace, metadata["name"])
            if key in self._objects.get(kind, {}):
                text = f'{kind[1]} "{key[1]}" already exists'
                raise AlreadyExists(409, "AlreadyExists", text)
            self._dress(kind, namespace, obj)
            return self._write(kind, key, None, obj)

    def seed(self, kind: Kind, namespace: str, obj: Obj) -> Obj:
        """Put it there as it is, status and uid included, over what has its name."""
        obj = deepcopy(obj)
        with self.changed:
            self._serial += 1
            key = (namespace, obj["metadata"]["name"])
            old = self._objects.get(kind, {}).get(key)
            metadata = {
                "uid": f"00000000-0000-0000-0000-{self._serial:012x}",
                "creationTimestamp": timestamps.rfc3339(self._clock.now()),
                **({"uid": old["metadata"]["uid"]} if old else {}),
                **obj["metadata"],
            }
            if namespace:
                metadata["namespace"] = namespace
            return self._write(kind, key, old, obj | {"metadata": metadata})

    def update(self, kind: Kind, key: Key, subresource: str, change: Callable[[Obj], Obj]) -> Obj:
        """`change` makes the whole new object of the old. Raises NotFound, Conflict, Invalid."""
        with self.changed:
            old = self.get(kind, key)
            new = change(deepcopy(old))
            _check_identity(kind, old, new)
            new = _allowed_parts(kind, subresource, old, new)
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if new == old:
                return old
            if "generation" in old["metadata"] and new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"]["generation"] + 1
            ended = "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers")
            if ended and kind != _POD:
                return self._remove(kind, key, new)
            return self._write(kind, key, old, new)

    def delete(self, kind: Kind, key: Key, options: Mapping[str, Any]) -> Obj:
        """Raises NotFound, Conflict."""
        with self.changed:
            old = self.get(kind, key)
            for name, wanted in (options.get("preconditions") or {}).items():
                if wanted != old["metadata"][name]:
                    text = f"the {name} in the precondition ({wanted}) does not match"
                    raise Conflict(409, "Conflict", text)
            grace = _grace(kind, old, options.get("gracePeriodSeconds"))
            if grace == 0 and not old["metadata"].get("finalizers"):
                return self._remove(kind, key, old)
            if "deletionTimestamp" in old["metadata"]:
                return old
            new = deepcopy(old)
            new["metadata"] |= {
                "deletionTimestamp": timestamps.rfc3339(self._clock.now() + grace),
                "deletionGracePeriodSeconds": grace,
            }
            return self._write(kind, key, old, new)

    def bookmark(self) -> None:
        """Tell every watch how far the server is."""
        with self.changed:
            self.history.append(Entry(self.version))
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget the history: what is not at the newest version must list again."""
        with self.changed:
            self.history.clear()
            self.version += 1  # other objects were written meanwhile, as they always are
            self.compacted = self.version
            self.changed.notify_all()

    def _dress(self, kind: Kind, namespace: str, obj: Obj) -> None:
        metadata = obj["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        metadata["uid"] = f"00000000-0000-0000-0000-{self._serial:012x}"
        metadata["creationTimestamp"] = timestamps.rfc3339(self._clock.now())
        if _own(kind) or kind == _POD:
            metadata["generation"] = 1
            obj.pop("status", None)
        if kind == _POD:
            obj["status"] = {"phase": "Pending"}

    def _write(self, kind: Kind, key: Key, old: Obj | None, new: Obj) -> Obj:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self._objects.setdefault(kind, {})[key] = new
        self.history.append(Entry(self.version, kind, key, old, new))
        self.changed.notify_all()
        return new

    def _remove(self, kind: Kind, key: Key, last: Obj) -> Obj:
        self.version += 1
        gone = deepcopy(last)
        gone["metadata"]["resourceVersion"] = str(self.version)
        old = self._objects[kind].pop(key)
        self.history.append(Entry(self.version, kind, key, old | {"metadata": gone["metadata"]}))
        self.changed.notify_all()
        return gone


def _own(kind: Kind) -> bool:
    return kind[0] == names.GROUP


def _has_status(kind: Kind) -> bool:
    return _own(kind) or kind in (_POD, ("", "nodes"), ("", "namespaces"))


def _check_identity(kind: Kind, old: Obj, new: Obj) -> None:
    given, known = new["metadata"], old["metadata"]
    version = given.get("resourceVersion")
    if version is None and _own(kind):
        text = "metadata.resourceVersion: Invalid value: must be specified for an update"
        raise Invalid(422, "Invalid", text)
    if version not in (None, "", known["resourceVersion"]):
        text = "the object has been modified; please apply your changes to the latest version"
        raise Conflict(409, "Conflict", text)
    if given.get("uid", known["uid"]) != known["uid"]:
        raise Conflict(409, "Conflict", "Precondition failed: UID in object meta")
    if given.get("name") != known["name"]:
        raise Invalid(400, "BadRequest", "the name of the object does not match the URL")


def _allowed_parts(kind: Kind, subresource: str, old: Obj, new: Obj) -> Obj:
    kept = ("uid", "creationTimestamp", "deletionTimestamp", "generation", "namespace")
    new["metadata"] |= {name: old["metadata"][name] for name in kept if name in old["metadata"]}
    if subresource == "status":
        # its own metadata: the history keeps the version before as it was
        mixed = old | {"status": new.get("status", {}), "metadata": dict(old["metadata"])}
        return mixed if _own(kind) else mixed | {"metadata": new["metadata"]}
    if _has_status(kind):
        new.pop("status", None)
        return new | ({"status": old["status"]} if "status" in old else {})
    return new


def _grace(kind: Kind, obj: Obj, asked: int | None) -> int:
    if kind != _POD or not obj.get("spec", {}).get("nodeName"):
        return 0
    if obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    default = obj["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)
    return int(default if asked is None else asked)
