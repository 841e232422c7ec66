"""
The checkpoints of this node, in a folder that outlives the agent.

Called by: the stories that seal and wake, `peers`, `objects`, the lending service. The folder is a
store of format v1 (docs/reference/checkpoint-format.md), and besides:

    arriving/NAMESPACE/NAME                 # of those that are on their way: `incoming`
    plain/...                               # what is not sealed: `plainly`
    sealed/...                              # of format v0, not carried over yet: `carriedover`

Rule: a checkpoint is there under its name whole, or it is not there. Rule: we are the only ones who
write here; so packs that nobody names go at once.
"""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kybernate.artifacts import manifest as manifests
from kybernate.artifacts import names, signing
from kybernate.artifacts.chunks import DomainKey
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import DAMAGE, Unusable
from kybernate.artifacts.manifest import Manifest
from kybernate.clients.errors import Refused, Retry
from kybernate.decisions import compatibility
from kybernate.ladder import carrying, reading, writing
from kybernate.ladder.progress import Course
from kybernate.ladder.publishing import publish
from kybernate.ladder.reading import Opened
from kybernate.ladder.writing import Writing
from kybernate.model.artifact import Kind
from kybernate.model.checkpoint import Fingerprint, Flaw
from kybernate.model.tier import Room
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.logs import get_logger
from kybernate.stores import port
from kybernate.stores.errors import Absent
from kybernate.stores.nvme import Nvme
from nodeagent.checkpoints.carriedover import CarriedOver
from nodeagent.checkpoints.changes import Change, Listener
from nodeagent.checkpoints.draft import Draft
from nodeagent.checkpoints.faults import AlreadySealed, NoRoom
from nodeagent.checkpoints.holdings import ARRIVING, Holdings, arriving_key
from nodeagent.checkpoints.incoming import Incoming
from nodeagent.checkpoints.plainly import DRAFT, PLAIN, Plainly
from nodeagent.checkpoints.sealed import Sealed, Shelf, unreadable
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.space import SPARE, Free, Space, free_bytes


class Store:
    """All of them. Thread safe."""

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        limit: int,
        *,
        spare: int = SPARE,
        free: Free = free_bytes,
        memory: Path | None = None,
    ) -> None:
        """`limit` is in bytes, `spare` what is left of the disk to others, `memory` a folder in
        memory for what is not sealed. Raises OSError, Refused, Retry."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.keys, self.space = keys, Space(folder, limit, spare, free)
        self.plainly = Plainly(folder / PLAIN, memory)
        self.plainly.keep(DRAFT, ())
        self.shelf = Shelf(store=Nvme(folder), keys=keys, clock=SystemClock())
        self.listener: Listener = lambda _: None
        """Hears of every copy that came, went, or was compared."""
        self._lock = threading.Lock()
        self._naming = threading.Lock()
        self._used: Counter[tuple[str, str]] = Counter()
        self._doomed: set[tuple[str, str]] = set()
        self._coming: dict[tuple[str, str], threading.Lock] = {}
        _forget_interrupted(folder)
        self._holdings = Holdings(self.shelf.store, self.space)
        self._before = CarriedOver(folder, self.shelf, self.space, self._holdings)
        self._rewrap()
        self._holdings.collect()

    def room(self) -> Room:
        """The limit, and what checkpoints and drafts take of it."""
        return self.space.room()

    def draft(
        self, namespace: str, name: str, need: int = 0, *, like: Facts | None = None, plain: int = 0
    ) -> Draft:
        """Begin one; `need` is how many bytes it will have, as far as is known, `plain` how many of
        them come as files. `like` says whose chunks it shares.

        Raises NoRoom, AlreadySealed, Unusable (the name), before anything is written.
        """
        names.check_key(namespace, name)
        if self._is_there(namespace, name):
            raise AlreadySealed(f"{namespace}/{name}")
        draft = Draft(self, namespace, name, like)
        try:
            try:
                draft.begin(need, plain)
            except NoRoom:
                if not self.make_room():
                    raise
                draft.begin(need, plain)
        except BaseException:
            draft.discard()
            raise
        return draft

    def incoming(self, opened: Opened, key: DomainKey) -> Incoming:
        """One that comes from elsewhere, which was admitted; of each there is one at a time:
        `alone`."""
        return Incoming(self, opened, key)

    @contextmanager
    def alone(self, namespace: str, name: str) -> Iterator[None]:
        """While somebody fetches it: the same checkpoint is fetched once, however many ask."""
        with self._lock:
            lock = self._coming.setdefault((namespace, name), threading.Lock())
        with lock:
            yield

    def open(
        self, namespace: str, name: str, here: Fingerprint | None = None, signature: str = ""
    ) -> Sealed:
        """One whose every byte is as it was sealed, and that may wake `here`.

        `signature`, as its GpuCheckpoint has it: it has to be that very one. Raises Unusable, and
        Refused, Retry of the disk.
        """
        sealed = self.peek(namespace, name)
        admit(sealed, here, signature)
        try:
            self.shelf.check(sealed.opened, Course(self.shelf.clock))
        except Unusable as problem:
            self.damaged(sealed, problem)
            raise
        self._holdings.mend(sealed.manifest)
        self._tell(Kind.VERIFIED, sealed)
        return sealed

    def believed(
        self, namespace: str, name: str, here: Fingerprint | None = None, signature: str = ""
    ) -> Sealed:
        """One that may wake `here`; its contents are checked while they are read, and whoever finds
        them `damaged` says so. Of one that shares with a damaged one all is read now. Raises
        Unusable."""
        sealed = self.peek(namespace, name)
        admit(sealed, here, signature)
        if self._holdings.is_doubted(sealed.manifest):  # what it shares may be the good part
            return self.open(namespace, name, here, signature)
        return sealed

    def damaged(self, sealed: Sealed, problem: Unusable) -> bool:
        """What it has is not what was sealed: nothing is shared with it from now on, until it is
        found good. Whether that is so, and another copy may do."""
        if problem.reason not in DAMAGE:
            return False
        self._holdings.spoil(sealed.manifest)
        self._tell(Kind.DAMAGED, sealed, str(problem))
        return True

    def peek(self, namespace: str, name: str) -> Sealed:
        """One whose manifest is signed; its contents are not looked at. Raises Unusable."""
        names.check_key(namespace, name)
        self._before.carry_over(namespace, name)
        with unreadable():
            opened = reading.opened(self.shelf.store, namespace, name, self.keys.trusted)
        return Sealed(opened=opened, shelf=self.shelf)

    def all(self) -> tuple[Sealed, ...]:
        """Every one whose manifest is signed; others are logged."""
        found = []
        for namespace, name in self._holdings.keys(names.MANIFESTS):
            try:
                found.append(self.peek(namespace, name))
            except Unusable as problem:
                get_logger().warning(
                    "checkpoint not usable", checkpoint=f"{namespace}/{name}", why=str(problem)
                )
        return tuple(found)

    @contextmanager
    def using(self, namespace: str, name: str) -> Iterator[None]:
        """While somebody reads its contents: a deletion waits for the end of it."""
        key = (namespace, name)
        with self._lock:
            self._used[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._used[key] -= 1
                doomed = not self._used[key] and key in self._doomed
            if doomed:
                self.delete(namespace, name)

    def freed_by_deleting(self, namespace: str, name: str) -> int:
        """Bytes of it that no other checkpoint has too."""
        return self._holdings.alone(names.manifest_key(namespace, name))

    def delete(self, namespace: str, name: str) -> bool:
        """Have it gone at once, then free its bytes; whether it was there. Raises Refused, Retry.

        One that is being used goes when it is not used any more.
        """
        key, gone = names.manifest_key(namespace, name), self._readable(namespace, name)
        with self._lock:
            if self._used[namespace, name]:
                self._doomed.add((namespace, name))
                return True
            self._doomed.discard((namespace, name))
            self._before.remove(namespace, name)
            if not self._holdings.drop(key):
                return False
        self._holdings.collect()
        self.listener(Change(kind=Kind.REMOVED, namespace=namespace, name=name, sealed=gone))
        return True

    def forget(self, namespace: str, name: str, signature: str) -> None:
        """Nobody wants that checkpoint any more: what has come of it goes."""
        with self._holdings.lock, suppress(Unusable, Refused, Retry):
            for key in self._holdings.idle():
                if key.endswith(f"/{namespace}/{name}") and self._holdings.is_of(key, signature):
                    self._holdings.drop(key)
                    self._holdings.collect()

    def make_room(self) -> bool:
        """Let go of what has come of those that were interrupted; whether there was something."""
        with self._holdings.lock:
            idle = self._holdings.idle()
            for key in idle:
                self._holdings.drop(key)
            self._holdings.collect()
        return bool(idle)

    def carry_over(self) -> None:
        """Whatever is here of format v0, one after the other; those that cannot be carried over now
        stay, and are logged."""
        for namespace, name in self._before.all():
            with suppress(Unusable):
                self.peek(namespace, name)

    # for drafts, and what comes

    def writing(self, draft: Draft, into: port.Store) -> Writing:
        """As `draft.Keeper` says."""
        domain = draft.namespace
        if draft.like is not None:
            domain = carrying.domain_of(_Named(draft.namespace, draft.name, draft.like),
                                        self.shelf.store, self.keys.trusted)  # fmt: skip
        key = self.keys.ring().newest(self.shelf.store, domain)
        ours = carrying.manifests(self.shelf.store, draft.namespace, self.keys.trusted)
        held = [one for one in ours if one.domain == domain]
        with self._holdings.lock:  # what went meanwhile is not among the packs that are sound
            known = writing.known(held, key, self._holdings.sound())
            shared = {names.pack_key(domain, pack.name) for pack, _ in known.values()}
            self._holdings.hold(draft, shared)
        return Writing(into, domain, key, Course(self.shelf.clock), known)

    def adopt(self, draft: Draft, made: Writing, facts: Facts) -> Sealed:
        """As `draft.Keeper` says."""
        with self._naming:
            if self._is_there(draft.namespace, draft.name):
                raise AlreadySealed(f"{draft.namespace}/{draft.name}")
            try:
                named = made.seal(draft.namespace, draft.name, facts, self.keys.signer)
            except BaseException:  # of a manifest that may be there, though not durably
                with suppress(Refused, Retry):
                    self._holdings.drop(names.manifest_key(draft.namespace, draft.name))
                raise
            sealed = self._named(*named)
        self._tell(Kind.SEALED, sealed)
        return sealed

    def given_up(self, draft: Draft) -> None:
        """As `draft.Keeper` says."""
        self._holdings.let(draft)

    def coming(self, incoming: Incoming) -> tuple[int, int]:
        """As `incoming.Keeper` says."""
        self._holdings.begin(incoming, incoming.opened)
        return self._holdings.lacking(incoming.opened.manifest)

    def came(self, incoming: Incoming) -> Sealed:
        """As `incoming.Keeper` says."""
        manifest, blob = incoming.opened.manifest, incoming.opened.blob
        publish(self.shelf.store, manifest, blob, Course(self.shelf.clock))
        sealed = self._named(manifest, blob)
        self._holdings.mend(manifest)
        with suppress(Refused, Retry):  # else it goes with the next fetch of it, or for room
            self._holdings.drop(arriving_key(manifest))
        self._holdings.let(incoming)
        self._tell(Kind.COPIED, sealed)
        return sealed

    def left(self, incoming: Incoming, *, forget: bool) -> None:
        """As `incoming.Keeper` says."""
        key = arriving_key(incoming.opened.manifest)
        with self._holdings.lock, suppress(Refused, Retry):
            if forget:
                self._holdings.drop(key)
            else:
                self._holdings.look(key)
        self._holdings.let(incoming)

    def _named(self, manifest: Manifest, blob: bytes) -> Sealed:
        """Its manifest has been put."""
        _, signature = signing.split(blob, manifests.MAX_MANIFEST)
        key = names.manifest_key(manifest.namespace, manifest.name)
        self._holdings.put(key, manifest, len(blob))
        opened = Opened(manifest=manifest, signature=signature, blob=blob)
        return Sealed(opened=opened, shelf=self.shelf)

    def _is_there(self, namespace: str, name: str) -> bool:
        """Whatever it is."""
        self._before.carry_over(namespace, name)
        try:
            self.shelf.store.stat(names.manifest_key(namespace, name))
        except Absent:
            return self._before.has(namespace, name)
        return True

    def _rewrap(self) -> None:
        """Keys here are wrapped by the key that wraps now, so that an older one may go."""
        try:
            self.keys.ring().rewrap(self.shelf.store)
        except (Refused, OSError) as problem:
            get_logger().warning("keys of checkpoints are not wrapped anew", why=str(problem))

    def _tell(self, kind: Kind, sealed: Sealed, detail: str = "") -> None:
        namespace, name = sealed.manifest.namespace, sealed.manifest.name
        told = Change(kind=kind, namespace=namespace, name=name, sealed=sealed, detail=detail)
        self.listener(told)

    def _readable(self, namespace: str, name: str) -> Sealed | None:
        try:
            return self.peek(namespace, name)
        except Unusable:
            return None


def _forget_interrupted(folder: Path) -> None:
    """Plain files of fetches that an agent of before (format v0) did not finish."""
    for one in (folder / ARRIVING).glob("*/*"):
        if one.is_dir():
            shutil.rmtree(one.parent, ignore_errors=True)


class _Named:
    """A checkpoint that is not sealed yet."""

    def __init__(self, namespace: str, name: str, facts: Facts) -> None:
        self.namespace, self.name, self.facts = namespace, name, facts


def admit(sealed: Sealed, here: Fingerprint | None, published: str) -> None:
    """Before its contents are looked at or fetched. Raises Unusable."""
    manifest = sealed.manifest
    if published and published != sealed.signature:
        raise Unusable(Flaw.NOT_PUBLISHED, f"{manifest.namespace}/{manifest.name}")
    if here is not None:
        facts = manifest.facts
        for one in compatibility.differences(facts.made_in, here, facts.boot_bound):
            raise Unusable(one.flaw, one.detail)
