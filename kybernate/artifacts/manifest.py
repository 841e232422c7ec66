"""
The manifest of format v1: what a checkpoint is, and which chunks its files are made of.

Called by: whoever seals (`encode`), wakes, collects or lists (`read`, `decode`). Rule: the bytes
that were signed are the bytes that are decoded. Rule: whatever a decoded manifest names is a safe
path and a chunk that is listed, and its sizes add up; nothing downstream checks that again.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from kybernate.api.errors import Malformed
from kybernate.api.fields import Reader
from kybernate.api.fields import read as read_fields
from kybernate.artifacts import facts as factsheet
from kybernate.artifacts import names, packs, signing
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.packs import Pack
from kybernate.artifacts.signing import Trusted
from kybernate.model.checkpoint import Checkpoint, Flaw

FORMAT, VERSION = "kybernate-checkpoint", 1
MAX_MANIFEST = 64 * 1024 * 1024  # bytes of JSON
MAX_PACKS = 65_536
MAX_CHUNKS = 1_048_576  # that are listed: 2 TiB of 2 MiB each, 48 MiB of JSON
MAX_PIECES = 1_048_576  # of all files
MAX_SIZE = 2**43  # bytes of all files, zeros and repeated chunks at full length
ORIGIN = "origin"


@dataclass(frozen=True, slots=True)
class Chunks:
    """`count` chunks one after the other, from number `first` of pack number `pack` on."""

    pack: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """So many bytes that are zero."""

    size: int


Piece = Chunks | Zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file: `path` below the checkpoint's folder, bytes, and what it is made of, in order."""

    path: str
    size: int
    content: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The manifest of format v0 that a checkpoint was carried here from, as it was signed: with it
    whoever has the files has that very checkpoint again."""

    signature: str
    size: int
    content: tuple[Piece, ...]

    @property
    def file(self) -> File:
        """Its bytes, as a file would be made of them."""
        return File(path=ORIGIN, size=self.size, content=self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of it."""

    namespace: str
    name: str
    domain: str
    key: str
    facts: Facts
    files: tuple[File, ...]
    packs: tuple[Pack, ...]
    origin: Origin | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def pack_keys(self) -> tuple[str, ...]:
        """Where its packs are in a store: what it needs to be read."""
        return tuple(names.pack_key(self.domain, pack.name) for pack in self.packs)

    @property
    def packed(self) -> int:
        """Bytes of its packs; other checkpoints may share some of them."""
        return sum(pack.size for pack in self.packs)

    def needed_packs(self, share: float) -> Iterator[Pack]:
        """Those of which it needs at least so much of their bytes."""
        needed: dict[int, set[int]] = {}
        for file in self.files:
            for piece in file.content:
                if isinstance(piece, Chunks):
                    numbers = range(piece.first, piece.first + piece.count)
                    needed.setdefault(piece.pack, set()).update(numbers)
        for number, pack in enumerate(self.packs):
            of_it = sum(pack.chunks[one].size for one in needed.get(number, ()))
            if of_it >= share * sum(chunk.size for chunk in pack.chunks):
                yield pack

    def checkpoint(self, signature: str) -> Checkpoint:
        """As the cluster knows it."""
        return self.facts.checkpoint(self.namespace, self.name, self.size, signature)


def read(blob: bytes, trusted: Trusted, namespace: str, name: str) -> tuple[Manifest, str]:
    """Of the object that stands under this name: the manifest and its signature, as its
    GpuCheckpoint has it. Raises Unusable."""
    content, signature = signing.split(blob, MAX_MANIFEST)
    signing.check(content, signature, trusted)
    manifest = decode(content)
    if (manifest.namespace, manifest.name) != (namespace, name):
        raise Unusable(Flaw.MISPLACED, f"{manifest.namespace}/{manifest.name}")
    return manifest, signature


def encode(manifest: Manifest) -> bytes:
    """The bytes to sign."""
    whole: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "namespace": manifest.namespace,
        "name": manifest.name,
        "domain": manifest.domain,
        "key": manifest.key,
        "size": manifest.size,
        "facts": factsheet.encode(manifest.facts),
        "files": [
            {
                "path": file.path,
                "size": file.size,
                "content": [_encode_piece(piece) for piece in file.content],
            }
            for file in manifest.files
        ],
        "packs": [b64encode(packs.encode_list(pack.chunks)).decode() for pack in manifest.packs],
    }
    if manifest.origin is not None:
        whole[ORIGIN] = {
            "signature": manifest.origin.signature,
            "size": manifest.origin.size,
            "content": [_encode_piece(piece) for piece in manifest.origin.content],
        }
    return orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)


def decode(content: bytes) -> Manifest:
    """Of bytes whose signature was checked. Raises Unusable."""
    if len(content) > MAX_MANIFEST:
        raise Unusable(Flaw.TOO_LARGE, f"a manifest of {len(content)} bytes")
    try:
        whole = orjson.loads(content)
        if whole["format"] != FORMAT or whole["version"] != VERSION:
            raise Unusable(Flaw.VERSION, f"version {names.shown(str(whole['version']))}")
        _bound(whole)
        manifest = read_fields(whole, "", _manifest)
        size = whole["size"]
    except (ValueError, KeyError, TypeError, Malformed) as error:
        raise Unusable(Flaw.MALFORMED, names.shown(str(error))) from error
    _check(manifest, size)
    return manifest


def renamed(manifest: Manifest, namespace: str, name: str) -> Manifest:
    """The same contents under another name, which its origin does not vouch for. Raises Unusable
    where it may not have it."""
    names.check_key(namespace, name)
    names.check_domain(namespace, manifest.domain)
    return replace(manifest, namespace=namespace, name=name, origin=None)


def _encode_piece(piece: Piece) -> list[int]:
    if isinstance(piece, Zeros):
        return [piece.size]
    return [piece.pack, piece.first, piece.count]


def _bound(whole: dict[str, Any]) -> None:
    """Before anything is made of it. Raises Unusable, KeyError, TypeError."""
    for name, most in (("files", names.MAX_FILES), ("packs", MAX_PACKS)):
        if len(whole[name]) > most:
            raise Unusable(Flaw.TOO_LARGE, f"{len(whole[name])} {name}")
    made = [*whole["files"], *([whole[ORIGIN]] if whole.get(ORIGIN) else [])]
    if sum(len(one["content"]) for one in made) > MAX_PIECES:
        raise Unusable(Flaw.TOO_LARGE, f"more than {MAX_PIECES} pieces")
    if sum(len(text) for text in whole["packs"]) > MAX_CHUNKS * 48:  # base64 of 36 bytes
        raise Unusable(Flaw.TOO_LARGE, f"more than {MAX_CHUNKS} chunks")


def _manifest(reader: Reader) -> Manifest:
    return Manifest(
        namespace=reader.text("namespace"),
        name=reader.text("name"),
        domain=reader.text("domain"),
        key=reader.text("key"),
        facts=factsheet.decode(reader.below("facts")),
        files=tuple(
            File(
                path=one.text("path"),
                size=one.integer("size"),
                content=tuple(map(_piece, one.sequence("content"))),
            )
            for one in reader.each("files")
        ),
        packs=tuple(map(_pack, reader.sequence("packs"))),
        origin=_origin(reader.below(ORIGIN)) if reader.value.get(ORIGIN) is not None else None,
    )


def _origin(reader: Reader) -> Origin:
    return Origin(
        signature=reader.text("signature"),
        size=reader.integer("size"),
        content=tuple(map(_piece, reader.sequence("content"))),
    )


def _piece(value: Any) -> Piece:
    """Raises ValueError."""
    match value:
        case [int(size)] if not isinstance(size, bool):
            return Zeros(size)
        case [int(pack), int(first), int(count)] if bool not in map(type, value):
            return Chunks(pack, first, count)
    raise ValueError("content: expected [pack, first, count] or [zeros]")


def _pack(value: Any) -> Pack:
    """Raises ValueError, Unusable."""
    if not isinstance(value, str):
        raise ValueError("packs: expected base64")
    return packs.decode_list(b64decode(value, validate=True))


def _check(manifest: Manifest, size: object) -> None:
    """Raises Unusable where its names are not safe, or it contradicts itself."""
    names.check_key(manifest.namespace, manifest.name)
    names.check_domain(manifest.namespace, manifest.domain)
    names.check_key_id(manifest.key)
    paths = [file.path for file in manifest.files]
    known = set(paths)
    for path in paths:
        names.check_path(path)
    if names.exclude_each_other(paths):
        raise Unusable(Flaw.MALFORMED, "files that exclude each other")
    if len({pack.name for pack in manifest.packs}) != len(manifest.packs):
        raise Unusable(Flaw.MALFORMED, "a pack is listed twice")
    for file in manifest.files:
        _check_content(file, manifest.packs)
    if manifest.origin is not None:
        _check_origin(manifest.origin, manifest.packs)
    if manifest.size > MAX_SIZE:
        raise Unusable(Flaw.TOO_LARGE, f"{manifest.size} bytes of files")
    if size != manifest.size:
        raise Unusable(Flaw.MALFORMED, "its size is not that of its files")
    for part in manifest.facts.parts:
        if part.path not in known:
            raise Unusable(Flaw.MALFORMED, f"GPU part {names.shown(part.name)} is in no file")


def _check_origin(origin: Origin, listed: tuple[Pack, ...]) -> None:
    if origin.size > names.MAX_MANIFEST:
        raise Unusable(Flaw.TOO_LARGE, f"an origin of {origin.size} bytes")
    if len(origin.signature) > signing.MAX_LINE:
        raise Unusable(Flaw.MALFORMED, "the signature of its origin")
    _check_content(origin.file, listed)


def _check_content(file: File, listed: tuple[Pack, ...]) -> None:
    """Raises Unusable where pieces do not exist, or do not add up."""
    if file.size > MAX_SIZE:
        raise Unusable(Flaw.TOO_LARGE, f"{names.shown(file.path)} of {file.size} bytes")
    at = 0
    for piece in file.content:
        for size in _lengths(piece, listed, file):
            if size > file.size - at:
                raise Unusable(Flaw.MALFORMED, f"content of {names.shown(file.path)}")
            at += size
    if at != file.size:
        raise Unusable(Flaw.MALFORMED, f"{names.shown(file.path)}: {at} bytes of {file.size}")


def _lengths(piece: Piece, listed: tuple[Pack, ...], file: File) -> Iterator[int]:
    """Bytes of each chunk, or of the row of zeros. Raises Unusable."""
    if isinstance(piece, Zeros):
        if piece.size < 1:
            raise Unusable(Flaw.MALFORMED, f"zeros in {names.shown(file.path)}")
        yield piece.size
        return
    chunks = listed[piece.pack].chunks if 0 <= piece.pack < len(listed) else ()
    if not 0 <= piece.first <= len(chunks) - piece.count or piece.count < 1:
        raise Unusable(Flaw.MALFORMED, f"{names.shown(file.path)} names a chunk that is not listed")
    for chunk in chunks[piece.first : piece.first + piece.count]:
        yield chunk.size
