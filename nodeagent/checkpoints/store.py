"""
The checkpoints of this node, in a folder that outlives the agent.

Called by: the stories that seal and wake, `peers`, the lending service. The folder:

    sealed/NAMESPACE/NAME/manifest.json, manifest.sig, files/...
    drafts/...                              # of no worth to anybody; emptied when the agent starts
    arriving/...                            # of fetches that were interrupted: `unfinished`

Rule: a checkpoint is there under its name whole, or it is not there.
"""

import shutil
import stat
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kybernate.artifacts import names
from kybernate.artifacts import v0 as manifests
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.v0 import Manifest
from kybernate.decisions import compatibility
from kybernate.model.artifact import Kind
from kybernate.model.checkpoint import Fingerprint, Flaw
from kybernate.model.tier import Room
from kybernate.runtime.logs import get_logger
from nodeagent.checkpoints import verifying
from nodeagent.checkpoints.changes import Change, Listener
from nodeagent.checkpoints.draft import Draft
from nodeagent.checkpoints.faults import AlreadySealed, NoRoom
from nodeagent.checkpoints.sealed import FILES, MANIFEST, SIGNATURE, Sealed
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.space import SPARE, Free, Space, free_bytes
from nodeagent.checkpoints.unfinished import Unfinished, weight
from nodeagent.disk.durable import sync_folder

_SEALED, _DRAFTS, _ARRIVING = "sealed", "drafts", "arriving"


class Store:
    """All of them. Thread safe."""

    def __init__(
        self, folder: Path, keys: Keys, limit: int, *, spare: int = SPARE, free: Free = free_bytes
    ) -> None:
        """`limit` is in bytes, `spare` what is left of the disk to others. Raises OSError."""
        self._sealed, self._drafts = folder / _SEALED, folder / _DRAFTS
        shutil.rmtree(self._drafts, ignore_errors=True)  # never sealed, so they never were
        for one in (folder, self._sealed, self._drafts):
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.keys, self.space = keys, Space(folder, limit, spare, free)
        self.listener: Listener = lambda _: None
        """Hears of every copy that came, went, or was compared."""
        self._lock = threading.Lock()
        self._used: Counter[tuple[str, str]] = Counter()
        self._doomed: set[tuple[str, str]] = set()
        self._spoilt: set[str] = set()  # signatures
        self._coming: dict[tuple[str, str], threading.Lock] = {}
        self.unfinished = Unfinished(folder / _ARRIVING, self.space)
        self._weigh()

    def room(self) -> Room:
        """The limit, and what checkpoints and drafts take of it."""
        return self.space.room()

    def draft(self, namespace: str, name: str, need: int = 0, *, replacing: bool = False) -> Draft:
        """Begin one; `need` is how many bytes it will have, as far as is known.

        `replacing`: for a damaged one of that name, which is deleted before this one is sealed.
        Raises NoRoom, AlreadySealed, Unusable (the name), before anything is written.
        """
        names.check_key(namespace, name)
        if self._root(namespace, name).exists() and not replacing:
            raise AlreadySealed(f"{namespace}/{name}")
        return self._begun(Draft(self, self._drafts / uuid.uuid4().hex, namespace, name), need)

    def arriving(self, namespace: str, name: str, signature: str, need: int) -> Draft:
        """One that comes from elsewhere, with what came of it before; what comes stays where it is
        interrupted. Of each there is one at a time: `alone`. Raises NoRoom, Unusable (the name)."""
        names.check_key(namespace, name)
        root = self.unfinished.begin(namespace, name, signature)
        return self._begun(Draft(self, root, namespace, name, stays=True), need)

    def left(self, root: Path) -> None:
        """From a draft that stays."""
        self.unfinished.left(root)

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

        `signature`, as its GpuCheckpoint has it: it has to be that very one. Raises Unusable.
        """
        sealed = self.peek(namespace, name)
        admit(sealed.manifest, sealed.signature, here, signature)
        try:
            verifying.check(sealed.folder, sealed.manifest)
        except Unusable as problem:
            self._tell(Kind.DAMAGED, sealed, str(problem))
            raise
        self._tell(Kind.VERIFIED, sealed)
        return sealed

    def peek(self, namespace: str, name: str) -> Sealed:
        """One whose manifest is signed; its files are not looked at. Raises Unusable."""
        names.check_key(namespace, name)
        root = self._root(namespace, name)
        content, signature = _read_root(root)
        self.keys.check(content, signature)
        manifest = manifests.decode(content)
        if (manifest.namespace, manifest.name) != (namespace, name):
            raise Unusable(Flaw.MISPLACED, f"{manifest.namespace}/{manifest.name}")
        return Sealed(folder=root / FILES, manifest=manifest, content=content, signature=signature)

    def all(self) -> tuple[Sealed, ...]:
        """Every one whose manifest is signed; others are logged."""
        found = []
        for namespace, name in self._keys():
            try:
                found.append(self.peek(namespace, name))
            except Unusable as problem:
                get_logger().warning(
                    "checkpoint not usable", checkpoint=f"{namespace}/{name}", why=str(problem)
                )
        return tuple(found)

    @contextmanager
    def earlier(self, namespace: str, workload: str) -> Iterator[Sealed | None]:
        """The newest here of a workload, which stays meanwhile: what one shares with it is linked,
        not copied. None where there is none, or what there is proved `spoilt`."""
        ours = [
            one
            for one in self.all()
            if one.manifest.namespace == namespace
            and one.manifest.facts.workload == workload
            and one.signature not in self._spoilt
        ]
        found = max(ours, key=lambda one: one.manifest.facts.sealed_at, default=None)
        if found is None:
            yield None
            return
        with self.using(namespace, found.manifest.name):
            yield found if found.folder.exists() else None

    def spoilt(self, sealed: Sealed) -> None:
        """What it has is not what was sealed: nothing is shared with it from now on."""
        self._spoilt.add(sealed.signature)

    @contextmanager
    def using(self, namespace: str, name: str) -> Iterator[None]:
        """While somebody reads its files by path: a deletion waits for the end of it."""
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
        files = self.folder(namespace, name).rglob("*")
        found = (path.lstat() for path in files)
        return sum(one.st_size for one in found if stat.S_ISREG(one.st_mode) and one.st_nlink == 1)

    def delete(self, namespace: str, name: str) -> bool:
        """Have it gone at once, then free its bytes; whether it was there. Raises OSError.

        One that is being used goes when it is not used any more.
        """
        names.check_key(namespace, name)
        grave, gone = self._drafts / uuid.uuid4().hex, self._readable(namespace, name)
        with self._lock:
            if self._used[namespace, name]:
                self._doomed.add((namespace, name))
                return True
            self._doomed.discard((namespace, name))
            try:
                self._root(namespace, name).rename(grave)
            except FileNotFoundError:
                return False
        sync_folder(self._sealed / namespace)
        if grave.is_symlink():
            grave.unlink()
        shutil.rmtree(grave, ignore_errors=True)
        self.space.give_back((namespace, name))
        with self._lock:
            self._weigh()  # what it shared is another's now
        self.listener(Change(kind=Kind.REMOVED, namespace=namespace, name=name, sealed=gone))
        return True

    def adopt(self, root: Path, manifest: Manifest, kind: Kind = Kind.SEALED) -> None:
        """From a draft that is complete on the disk. Raises AlreadySealed."""
        target = self._root(manifest.namespace, manifest.name)
        with self._lock:
            target.parent.mkdir(exist_ok=True, mode=0o700)
            if target.exists():
                raise AlreadySealed(f"{manifest.namespace}/{manifest.name}")
            sync_folder(root)
            root.rename(target)
            self._weigh()
            self.unfinished.over(root)
        sync_folder(target.parent)
        sync_folder(self._sealed)
        came = self._readable(manifest.namespace, manifest.name)
        if came is not None:
            self._tell(kind, came)

    def folder(self, namespace: str, name: str) -> Path:
        """Where the files of a sealed one are."""
        return self._root(namespace, name) / FILES

    def _weigh(self) -> None:
        """What each takes, files that several have counted once."""
        counted: set[int] = set()
        for namespace, name in self._keys():
            self.space.put((namespace, name), weight(self._root(namespace, name), counted))

    def _begun(self, draft: Draft, need: int) -> Draft:
        try:
            try:
                draft.begin(need)
            except NoRoom:
                if not self.unfinished.make_room():
                    raise
                draft.begin(need)
        except BaseException:
            draft.discard()
            raise
        return draft

    def _tell(self, kind: Kind, sealed: Sealed, detail: str = "") -> None:
        namespace, name = sealed.manifest.namespace, sealed.manifest.name
        told = Change(kind=kind, namespace=namespace, name=name, sealed=sealed, detail=detail)
        self.listener(told)

    def _readable(self, namespace: str, name: str) -> Sealed | None:
        try:
            return self.peek(namespace, name)
        except Unusable:
            return None

    def _root(self, namespace: str, name: str) -> Path:
        return self._sealed / namespace / name

    def _keys(self) -> Iterator[tuple[str, str]]:
        for namespace in sorted(self._sealed.iterdir()):
            if namespace.is_dir() and not namespace.is_symlink():
                yield from ((namespace.name, one.name) for one in sorted(namespace.iterdir()))


def admit(manifest: Manifest, signature: str, here: Fingerprint | None, published: str) -> None:
    """Before its bytes are looked at or fetched. Raises Unusable."""
    if published and published != signature:
        raise Unusable(Flaw.NOT_PUBLISHED, f"{manifest.namespace}/{manifest.name}")
    if here is not None:
        facts = manifest.facts
        for one in compatibility.differences(facts.made_in, here, facts.boot_bound):
            raise Unusable(one.flaw, one.detail)


def _read_root(root: Path) -> tuple[bytes, str]:
    """The manifest's bytes and the signature. Raises Unusable where more or less is there."""
    try:
        for folder in (root.parent, root):
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise Unusable(Flaw.LINK, names.shown(folder.name))
        kinds = {entry.name: entry.lstat().st_mode for entry in root.iterdir()}
        _check_root(kinds)
        if (root / MANIFEST).stat().st_size > names.MAX_MANIFEST:
            raise Unusable(Flaw.TOO_LARGE, MANIFEST)
        with (root / SIGNATURE).open("rb") as file:
            signature = file.read(1024).decode("ascii", "replace").strip()
        return (root / MANIFEST).read_bytes(), signature
    except FileNotFoundError as error:
        raise Unusable(Flaw.ABSENT) from error
    except OSError as error:
        raise Unusable(Flaw.MALFORMED, str(error.strerror)) from error


def _check_root(kinds: dict[str, int]) -> None:
    for name, mode in sorted(kinds.items()):
        if stat.S_ISLNK(mode):
            raise Unusable(Flaw.LINK, names.shown(name))
        right = stat.S_ISDIR(mode) if name == FILES else stat.S_ISREG(mode)
        if name not in (FILES, MANIFEST, SIGNATURE):
            raise Unusable(Flaw.FILE_EXTRA, names.shown(name))
        if not right:
            raise Unusable(Flaw.SPECIAL_FILE, names.shown(name))
    for name, flaw in ((MANIFEST, Flaw.MALFORMED), (SIGNATURE, Flaw.UNSIGNED)):
        if name not in kinds:
            raise Unusable(flaw, f"no {name}")
    if FILES not in kinds:
        raise Unusable(Flaw.FILE_MISSING, FILES)
