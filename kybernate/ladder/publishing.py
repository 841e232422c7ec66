"""
Putting a manifest so that no collector takes a pack of it: docs/decisions/0021.

Called by: whoever seals, copies or renames. An intent names the packs first; then no sweep may be
under way that names one, and all have to be there; then the manifest is put, and the intent goes.
Rule: whoever sweeps looks for intents after its sweep is in the store, and we for sweeps after our
intent is: one of the two sees the other, whatever any clock says. Rule: a manifest that is in the
store has all its packs, also where we end in the middle.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from kybernate.artifacts import collection, names
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.artifacts.packs import Pack
from kybernate.clients.errors import Refused, Retry
from kybernate.ladder.progress import Course
from kybernate.stores import port
from kybernate.stores.errors import Absent
from kybernate.stores.port import Store

Put = TypeVar("Put")

_AT_ONCE = 8  # questions to a store
_TRIES = 3
_LOOK_S = 0.5
_PATIENCE_S = 60.0  # a sweep deletes for minutes at most, and of ours nothing as a rule


class Collected(Retry):
    """Packs went, or are going, before the manifest could name them. Done again, they are put."""


def putting_again(put: Callable[[], Put]) -> Put:
    """What `put` answers; it is done again where a collector took packs before the manifest named
    them. Raises Collected after several times, and what it raises."""
    for _ in range(_TRIES - 1):
        with suppress(Collected):
            return put()
    return put()


def has(store: Store, domain: str, pack: Pack) -> bool:
    """Whether a pack is there, as far as its size tells."""
    try:
        return store.stat(names.pack_key(domain, pack.name)).size == pack.size
    except Absent:
        return False


def publish(store: Store, manifest: Manifest, blob: bytes, course: Course) -> None:
    """Put the object of a manifest; its packs have been put. It replaces.

    Raises Collected, Ended, and what the store raises; then the manifest is not there, or the one
    that was there before is.
    """
    key = names.manifest_key(manifest.namespace, manifest.name)
    if not manifest.packs:
        store.put(key, blob)
        return
    packs = frozenset(pack.name for pack in manifest.packs)
    for _ in range(_TRIES):
        with _intent(store, manifest.domain, packs) as intent:
            _wait_for_sweeps(store, manifest.domain, packs, course)
            _check_there(store, manifest.domain, manifest.packs)
            before = _content(store, key)
            store.put(key, blob)
            if port.is_there(store, intent):
                return  # whoever sweeps without it has begun after the manifest
        _restore(store, key, before)  # somebody took us for dead: a clock jumped, or we slept
    raise Collected(f"{key}: its intent was taken away {_TRIES} times")


@contextmanager
def _intent(store: Store, domain: str, packs: frozenset[str]) -> Iterator[str]:
    key = f"{collection.intents(domain)}/{uuid.uuid4().hex}"
    store.put(key, collection.encode(packs))
    try:
        yield key
    finally:
        with suppress(Refused, Retry):  # one that stays is taken away in time
            store.delete(key)


def _wait_for_sweeps(store: Store, domain: str, packs: frozenset[str], course: Course) -> None:
    """Until none is under way that could take one of ours. Raises Collected, Ended."""
    waited = 0.0
    while ours := _meant(store, domain, packs):
        if waited >= _PATIENCE_S:
            raise Collected(f"{len(ours)} packs of {domain} are being collected for too long")
        course.pause(_LOOK_S)
        waited += _LOOK_S


def _meant(store: Store, domain: str, packs: frozenset[str]) -> frozenset[str]:
    """Of these packs, those that a sweep names; all where one cannot be read."""
    found: set[str] = set()
    for listed in list(store.list(collection.sweeps(domain))):
        try:
            content = store.get(listed.key, 0, collection.MAX_OBJECT + 1)
            found |= collection.decode(content) & packs
        except Absent:
            continue
        except Unusable:
            return packs
    return frozenset(found)


def _check_there(store: Store, domain: str, packs: Iterable[Pack]) -> None:
    """Raises Collected."""

    def missing(pack: Pack) -> str:
        return "" if has(store, domain, pack) else pack.name

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="publishing") as threads:
        gone = [name for name in threads.map(missing, packs) if name]
    if gone:
        raise Collected(f"{len(gone)} packs of {domain} are gone, {gone[0]} is one")


def _content(store: Store, key: str) -> bytes | None:
    try:
        return bytes(store.get(key))
    except Absent:
        return None


def _restore(store: Store, key: str, before: bytes | None) -> None:
    if before is None:
        store.delete(key)
    else:
        store.put(key, before)
