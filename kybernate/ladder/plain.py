"""
Checkpoints of format v0 in an agent's folder: read to be sealed into a store, made of what a store
holds; the agent carries them over into its own. docs/reference/checkpoint-v0.md.

Called by: `kyb checkpoint export` and `import`, agents. Rule: what is read is hostile until
signature and digests are checked. Rule: what is made is whole under its name or not there: files,
manifest, signature, then the name, each durable before the next.
"""

import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import names, signing, v0
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.signing import Trusted
from kybernate.clients.errors import Refused
from kybernate.ladder.reading import sync
from kybernate.ladder.writing import cut
from kybernate.model.checkpoint import Flaw

SEALED, DRAFTS, FILES = "sealed", "plain", "files"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"


class AlreadyThere(Refused):
    """There is a checkpoint of this name; it stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A checkpoint whose manifest is believed; its files are checked while they are read."""

    folder: Path
    manifest: v0.Manifest
    signature: str
    content: bytes = field(repr=False)

    def read(self, file: v0.File) -> Iterator[bytes]:
        """A file by chunks. Raises Unusable, at its end too: then nothing of it may be used."""
        digest, size = sha256(), 0
        try:
            for chunk in cut(self.folder / FILES / file.path):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        except OSError as error:
            raise Unusable(Flaw.FILE_MISSING, f"{file.path}: {error.strerror}") from error
        if size != file.size:
            raise Unusable(Flaw.FILE_SIZE, f"{file.path}: {size} bytes of {file.size}")
        if digest.hexdigest() != file.sha256:
            raise Unusable(Flaw.FILE_ALTERED, file.path)


def is_agents(folder: Path) -> bool:
    """Whether a folder is an agent's: it has a place for what is not sealed, as no store has."""
    return (folder / SEALED).is_dir() or (folder / DRAFTS).is_dir()


def has(folder: Path, namespace: str, name: str) -> bool:
    """Whether one is in an agent's folder, as far as its names tell. Raises Unusable."""
    names.check_key(namespace, name)
    return (folder / SEALED / namespace / name).is_dir()


def opened(folder: Path, namespace: str, name: str, trusted: Trusted) -> Plain:
    """Of an agent's folder. Raises Unusable."""
    names.check_key(namespace, name)
    root = folder / SEALED / namespace / name
    try:
        if (root / MANIFEST).stat().st_size > names.MAX_MANIFEST:
            raise Unusable(Flaw.TOO_LARGE, MANIFEST)
        content = (root / MANIFEST).read_bytes()
        signature = (root / SIGNATURE).read_bytes()[:1024].decode("ascii", "replace").strip()
    except OSError as error:
        raise Unusable(Flaw.ABSENT, f"{namespace}/{name}: {error.strerror}") from error
    signing.check(content, signature, trusted, signing.V0)
    manifest = v0.decode(content)
    if (manifest.namespace, manifest.name) != (namespace, name):
        raise Unusable(Flaw.MISPLACED, f"{manifest.namespace}/{manifest.name}")
    return Plain(folder=root, manifest=manifest, signature=signature, content=content)


class Draft:
    """One that is being made in an agent's folder: fill `files`, then `seal`. A context manager
    that leaves nothing unless it was sealed."""

    def __init__(self, folder: Path, namespace: str, name: str) -> None:
        """Raises Unusable for names that are not allowed, AlreadyThere, OSError."""
        names.check_key(namespace, name)
        self._folder, self._key = folder, (namespace, name)
        self._target = folder / SEALED / namespace / name
        if self._target.exists():
            raise AlreadyThere(f"{namespace}/{name} is in {folder}")
        self._root = folder / DRAFTS / f"draft-{uuid.uuid4().hex}"  # an agent's start removes it
        self.files = self._root / FILES
        self.files.mkdir(parents=True, mode=0o700)

    def __enter__(self) -> "Draft":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def seal(self, like: Facts, paths: Iterable[str], signer: Ed25519PrivateKey) -> None:
        """Make it a checkpoint; its files are synced. Raises Unusable, OSError."""
        namespace, name = self._key
        files = tuple(_digested(self.files, path) for path in sorted(paths))
        manifest = v0.Manifest(namespace=namespace, name=name, facts=like, files=files)
        content = v0.encode(manifest)
        v0.decode(content)
        _put(self._root / MANIFEST, content)
        signature = signing.sign(content, signer, signing.V0)
        _put(self._root / SIGNATURE, f"{signature}\n".encode())
        sync(self._root)
        self._target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root.rename(self._target)
        for folder in (self._target.parent, self._folder / SEALED):
            sync(folder)


def _digested(folder: Path, path: str) -> v0.File:
    digest, size = sha256(), 0
    for chunk in cut(folder / path):
        digest.update(chunk)
        size += len(chunk)
    return v0.File(path=path, size=size, sha256=digest.hexdigest())


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sync(path)
