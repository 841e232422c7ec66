"""
Which packs of a node's store belong to whom, and away with the rest.

Called by: the store. Packs of a checkpoint are named by its manifest; those of one that was
interrupted on its way by the record in `arriving/`, which is its manifest, too; those of a draft,
or of what is coming, by itself. Rule: what nobody names goes at once. Rule: what may still be read
one day (signed by a key that is not trusted now, of a later version) keeps its packs; what nobody
can ever read does not.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Protocol

from kybernate.artifacts import collection, names, signing
from kybernate.artifacts import manifest as manifests
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.clients.errors import Refused, Retry
from kybernate.ladder import carrying
from kybernate.ladder.reading import Opened
from kybernate.model.checkpoint import Flaw
from kybernate.runtime.logs import get_logger
from kybernate.stores import port
from kybernate.stores.port import Store
from nodeagent.checkpoints.space import Space

ARRIVING = "arriving"
_PACKS = "packs"  # who holds the room of what is here
_DOUBTED = "doubted"  # an empty object for each pack of a damaged checkpoint


class Holder(Protocol):
    """A draft, or what is coming."""

    @property
    def packs(self) -> frozenset[str]:
        """Keys of those it has put, or is to have."""


class Holdings:
    """Thread safe. What is named is known by the key of the object that names it."""

    def __init__(self, store: Store, space: Space) -> None:
        """Reads every manifest. Raises what the store raises."""
        self._store, self._space = store, space
        self.lock = threading.RLock()
        """For whoever looks and then acts on it."""
        self._named: dict[str, frozenset[str]] = {}
        self._sizes: dict[str, int] = {}  # of the objects that name
        self._later = False  # there is one of a version that we do not read
        self._held: dict[Holder, frozenset[str]] = {}  # beside what they have put
        self._doubted = {_pack_of(one.key) for one in list(store.list(_DOUBTED))}
        self._others = 0  # who write here without a name
        self._forget_writers()
        for prefix in (names.MANIFESTS, ARRIVING):
            for listed in list(store.list(prefix)):
                self.look(listed.key)

    def look(self, key: str) -> None:
        """A manifest, or a record, came or was replaced. Raises what the store raises."""
        blob = bytes(self._store.get(key, 0, manifests.MAX_MANIFEST + signing.MAX_LINE + 1))
        packs = frozenset[str]()
        try:
            content, _ = signing.split(blob, manifests.MAX_MANIFEST)
            packs = frozenset(manifests.decode(content).pack_keys)
        except Unusable as problem:
            self._later = self._later or problem.reason is Flaw.VERSION
            get_logger().warning("not usable", manifest=key, why=str(problem))
        with self.lock:
            self._named[key], self._sizes[key] = packs, len(blob)

    def put(self, key: str, manifest: Manifest, size: int) -> None:
        """A manifest came, whose object is of so many bytes."""
        with self.lock:
            self._named[key], self._sizes[key] = frozenset(manifest.pack_keys), size

    def drop(self, key: str) -> bool:
        """Have such an object gone; whether it was there. Raises what the store raises."""
        with self.lock:
            self._named.pop(key, None)
            self._sizes.pop(key, None)
            return self._store.delete(key)

    def keys(self, prefix: str) -> list[tuple[str, str]]:
        """Namespace and name of what is below."""
        with self.lock:
            parts = [PurePosixPath(key).parts for key in sorted(self._sizes)]
        return [(one[1], one[2]) for one in parts if one[0] == prefix and len(one) == 3]

    def alone(self, key: str) -> int:
        """Bytes of packs that only this one names."""
        with self.lock:
            others = (packs for one, packs in self._named.items() if one != key)
            packs = self._named.get(key, frozenset()).difference(*others)
            there = self._there()
        return sum(there.get(one, 0) for one in packs)

    def lacking(self, manifest: Manifest) -> tuple[int, int]:
        """Bytes of packs that no other names, and how many of them are there all the same."""
        with self.lock:
            own = frozenset(manifest.pack_keys).difference(*self._named.values())
            there = self._there()
        sizes = dict(zip(manifest.pack_keys, (one.size for one in manifest.packs), strict=True))
        return sum(sizes[one] for one in own), sum(there.get(one, 0) for one in own)

    # what is damaged

    def sound(self) -> Mapping[str, int]:
        """Packs that may be shared: bytes, by key."""
        with self.lock:
            return {key: size for key, size in self._there().items() if key not in self._doubted}

    def is_doubted(self, manifest: Manifest) -> bool:
        """Whether one of its packs is in a checkpoint that is damaged."""
        with self.lock:
            return not self._doubted.isdisjoint(manifest.pack_keys)

    @property
    def doubted(self) -> frozenset[str]:
        """Packs that nothing new shares."""
        with self.lock:
            return frozenset(self._doubted)

    def spoil(self, manifest: Manifest) -> None:
        """Something in it is not what was sealed: noted for the next agent, too."""
        with self.lock:
            fresh = frozenset(manifest.pack_keys) - self._doubted
            self._doubted.update(fresh)
            with suppress(Refused, Retry):  # a disk that fails: known to this agent only
                for key in fresh:
                    self._store.put(_note_of(key), b"")

    def mend(self, manifest: Manifest) -> None:
        """All of it is what was sealed."""
        with self.lock:
            good = self._doubted.intersection(manifest.pack_keys)
            self._doubted -= good
            self._forget(good)

    def _forget(self, doubted: Iterable[str]) -> None:
        with suppress(Refused, Retry):
            for key in doubted:
                self._store.delete(_note_of(key))

    # who holds what

    def hold(self, holder: Holder, more: Iterable[str] = ()) -> None:
        """Its packs stay, and these, until it is `let`."""
        with self.lock:
            self._held[holder] = frozenset(more)

    def let(self, holder: Holder) -> None:
        """What of it nobody else names goes. Twice is fine."""
        with self.lock:
            self._held.pop(holder, None)
            try:
                self.collect()
            except (Refused, Retry) as problem:
                get_logger().warning("packs that nobody names stay for now", why=str(problem))

    @contextmanager
    def others(self) -> Iterator[None]:
        """While somebody puts packs here without telling which: none goes."""
        with self.lock:
            self._others += 1
        try:
            yield
        finally:
            with self.lock:
                self._others -= 1

    def collect(self) -> None:
        """Away with packs that nobody names; what is left is what we hold. Raises what the store
        raises."""
        with self.lock:
            if self._others:
                return
            there = self._there()
            held = [more | holder.packs for holder, more in self._held.items()]
            named = frozenset().union(*self._named.values())
            if not self._later:
                gone = frozenset(there).difference(named, *held)
                for key in gone:
                    self._store.delete(key)
                    del there[key]
                self._forget(gone & self._doubted)
                self._doubted -= gone
            own = frozenset().union(*held) - named  # their holders count them
            packs = sum(size for key, size in there.items() if key not in own)
            self._space.put(_PACKS, packs + sum(self._sizes.values()))

    # what was interrupted

    def begin(self, holder: Holder, opened: Opened) -> None:
        """It is on its way: its packs are its own until it is `let`, also for the next agent."""
        key = arriving_key(opened.manifest)
        with self.lock:
            self.hold(holder)
            self._named.pop(key, None)
            self._sizes.pop(key, None)
            self._store.put(key, opened.blob)

    def idle(self) -> list[str]:
        """Records of those that were interrupted, and that nobody fetches now."""
        with self.lock:
            return [key for key in self._sizes if port.is_below(key, ARRIVING)]

    def is_of(self, key: str, signature: str) -> bool:
        """Whether a record is of the checkpoint of this signature. Raises Unusable."""
        blob = bytes(self._store.get(key))
        content, own = signing.split(blob, manifests.MAX_MANIFEST)
        opened = Opened(manifest=manifests.decode(content), signature=own, blob=blob)
        return carrying.same(opened, signature)

    def _there(self) -> dict[str, int]:
        found = self._store.list(names.DOMAINS)
        return {one.key: one.size for one in found if names.is_pack(one.key)}

    def _forget_writers(self) -> None:
        """What those before us were about to name, or to collect (docs/decisions/0021)."""
        for one in list(self._store.list(names.DOMAINS)):
            domain = one.key.split("/")[1]
            for left in (collection.intents(domain), collection.sweeps(domain)):
                if port.is_below(one.key, left):
                    self._store.delete(one.key)


def arriving_key(manifest: Manifest) -> str:
    """Where the record of one is that is on its way."""
    return f"{ARRIVING}/{manifest.namespace}/{manifest.name}"


def _note_of(pack: str) -> str:
    """Where it stands that a pack is doubted."""
    _, domain, *_, name = pack.split("/")
    return f"{_DOUBTED}/{domain}/{name}"


def _pack_of(note: str) -> str:
    _, domain, name = note.split("/")
    return names.pack_key(domain, name)
