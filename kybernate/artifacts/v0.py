"""
The manifest of format v0, plain files each with its digest: docs/reference/checkpoint-v0.md. Pure.

Called by: agents, which carry it over; `kybernate/ladder/plain.py`. Rule: the bytes that were
signed are the bytes that are decoded; nothing is decoded before its signature was checked.
Rule: whatever a decoded manifest names is a safe relative path, and no path lies below a file.
"""

from dataclasses import asdict, dataclass

import orjson

from kybernate.api.errors import Malformed
from kybernate.api.fields import Reader, read
from kybernate.artifacts import facts as factsheet
from kybernate.artifacts import names
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Checkpoint, Flaw

FORMAT, VERSION = "kybernate-checkpoint", 0
LAYERED = 2  # the version of one whose GPU contents are in layers; 1 is the stores' format
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file: `path` below the checkpoint's folder, bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of it."""

    namespace: str
    name: str
    facts: Facts
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def checkpoint(self, signature: str) -> Checkpoint:
        """As the cluster knows it."""
        return self.facts.checkpoint(self.namespace, self.name, self.size, signature)


def encode(manifest: Manifest) -> bytes:
    """The bytes to sign."""
    whole = {
        "format": FORMAT,
        "version": LAYERED if _is_layered(manifest) else VERSION,
        "namespace": manifest.namespace,
        "name": manifest.name,
        "size": manifest.size,
        "facts": factsheet.encode(manifest.facts),
        "files": [asdict(file) for file in manifest.files],
    }
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def decode(content: bytes) -> Manifest:
    """Of bytes whose signature was checked. Raises Unusable."""
    try:
        whole = orjson.loads(content)
        if whole["format"] != FORMAT or whole["version"] not in (VERSION, LAYERED):
            raise Unusable(Flaw.VERSION, f"version {names.shown(str(whole['version']))}")
        manifest = read(whole, "", _manifest)
    except (ValueError, KeyError, TypeError, Malformed) as error:
        raise Unusable(Flaw.MALFORMED, names.shown(str(error))) from error
    _check(manifest, whole.get("size"))
    if _is_layered(manifest) != (whole["version"] == LAYERED):
        raise Unusable(Flaw.VERSION, "parts in layers, and another version")
    return manifest


def _is_layered(manifest: Manifest) -> bool:
    return any(part.layered for part in manifest.facts.parts)


def _manifest(reader: Reader) -> Manifest:
    return Manifest(
        namespace=reader.text("namespace"),
        name=reader.text("name"),
        facts=factsheet.decode(reader.below("facts")),
        files=tuple(
            File(path=f.text("path"), size=f.integer("size"), sha256=f.text("sha256"))
            for f in reader.each("files")
        ),
    )


def _check(manifest: Manifest, size: object) -> None:
    """Raises Unusable where its paths are not safe, or it contradicts itself."""
    names.check_key(manifest.namespace, manifest.name)
    if len(manifest.files) > names.MAX_FILES:
        raise Unusable(Flaw.TOO_LARGE, f"{len(manifest.files)} files")
    paths = [file.path for file in manifest.files]
    known = frozenset(paths)
    for file in manifest.files:
        names.check_path(file.path)
        if len(file.sha256) != 64 or not _HEX.issuperset(file.sha256):
            raise Unusable(Flaw.MALFORMED, f"digest of {names.shown(file.path)}")
    if names.exclude_each_other(paths) or size != manifest.size:
        raise Unusable(Flaw.MALFORMED, "files that exclude each other, or a wrong size")
    for part in manifest.facts.parts:
        if part.path not in known:
            raise Unusable(Flaw.MALFORMED, f"GPU part {names.shown(part.name)} is in no file")


def folders_of(files: tuple[File, ...]) -> frozenset[str]:
    """Every folder that files lie in."""
    return frozenset(folder for file in files for folder in names.above(file.path))
