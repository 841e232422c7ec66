"""
The manifest: what a checkpoint is, what it was made in, and the digest of every file. Pure.

Called by: drafts (encode), the store and peers (decode). Rule: the bytes that were signed are the
bytes that are decoded; nothing is decoded before its signature was checked. Rule: whatever a
decoded manifest names is a safe relative path, and no path lies below a file.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from kybernate.api.errors import Malformed
from kybernate.api.fields import Reader, read
from kybernate.model.checkpoint import Checkpoint, Fingerprint, Flaw
from kybernate.model.ids import NodeName, PodUid
from nodeagent.checkpoints import names
from nodeagent.checkpoints.faults import Unusable

FORMAT, VERSION = "kybernate-checkpoint", 0
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file: `path` below the checkpoint's folder, bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPart:
    """A piece of the GPU's contents. `card` is its place in the group (0 is the first), `size` the
    card's bytes, `digest` the mechanism's own of what was in VRAM, `path` the file it is in."""

    name: str
    card: int
    size: int
    digest: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What whoever seals knows of the workload. `sealed_at` is seconds since the epoch.

    `workload` is its identity (`kybernate/api/identity.py`), or its pod's name where it has none.
    `boot_bound`: it cannot outlive the machine's boot. `labels` are the pod's. `more` is for
    whoever wakes it: short texts by name.
    """

    workload: str
    pod: str
    pod_uid: PodUid
    container: str
    node: NodeName
    sealed_at: float
    made_in: Fingerprint
    boot_bound: bool = False
    gold: bool = False
    parts: tuple[GpuPart, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)


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

    @property
    def fingerprint(self) -> str:
        """What a wake compares, as a hash: equal for checkpoints that may wake at the same places,
        boots aside."""
        made_in = {**_fingerprint(self.facts.made_in), "boot": ""}
        return "sha256:" + sha256(orjson.dumps(made_in, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def checkpoint(self, signature: str) -> Checkpoint:
        """As the cluster knows it."""
        return Checkpoint(
            namespace=self.namespace,
            name=self.name,
            size=self.size,
            ready=True,
            gold=self.facts.gold,
            workload=self.facts.workload,
            sealed_at=self.facts.sealed_at,
            labels=self.facts.labels,
            signature=signature,
        )


def encode(manifest: Manifest) -> bytes:
    """The bytes to sign."""
    facts = {**asdict(manifest.facts), "made_in": _fingerprint(manifest.facts.made_in)}
    whole = {
        "format": FORMAT,
        "version": VERSION,
        "namespace": manifest.namespace,
        "name": manifest.name,
        "size": manifest.size,
        "facts": facts,
        "files": [asdict(file) for file in manifest.files],
    }
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def decode(content: bytes) -> Manifest:
    """Of bytes whose signature was checked. Raises Unusable."""
    try:
        whole = orjson.loads(content)
        if whole["format"] != FORMAT or whole["version"] != VERSION:
            raise Unusable(Flaw.VERSION, f"version {names.shown(str(whole['version']))}")
        manifest = read(whole, "", _manifest)
    except (ValueError, KeyError, TypeError, Malformed) as error:
        raise Unusable(Flaw.MALFORMED, names.shown(str(error))) from error
    _check(manifest, whole.get("size"))
    return manifest


def _fingerprint(made_in: Fingerprint) -> dict[str, Any]:
    return {**asdict(made_in), "cpu": sorted(made_in.cpu)}


def _manifest(reader: Reader) -> Manifest:
    return Manifest(
        namespace=reader.text("namespace"),
        name=reader.text("name"),
        facts=_facts(reader.below("facts")),
        files=tuple(
            File(path=f.text("path"), size=f.integer("size"), sha256=f.text("sha256"))
            for f in reader.each("files")
        ),
    )


def _facts(reader: Reader) -> Facts:
    made_in = reader.below("made_in")
    return Facts(
        workload=reader.text("workload"),
        pod=reader.text("pod"),
        pod_uid=PodUid(reader.text("pod_uid")),
        container=reader.text("container"),
        node=NodeName(reader.text("node")),
        sealed_at=reader.seconds("sealed_at"),
        made_in=Fingerprint(
            **{
                name: made_in.text(name)
                for name in ("kernel", "architecture", "boot", "image", "mechanism")
            },
            command=tuple(map(str, made_in.sequence("command"))),
            cpu=frozenset(map(str, made_in.sequence("cpu"))),
            product=made_in.text("product"),
            driver=made_in.text("driver"),
        ),
        boot_bound=reader.flag("boot_bound"),
        gold=reader.flag("gold"),
        parts=tuple(_part(part) for part in reader.each("parts")),
        labels=_texts(reader.below("labels")),
        more=_texts(reader.below("more")),
    )


def _part(reader: Reader) -> GpuPart:
    return GpuPart(
        name=reader.text("name"),
        card=reader.integer("card"),
        size=reader.integer("size"),
        digest=reader.text("digest"),
        path=reader.text("path"),
    )


def _texts(reader: Reader) -> dict[str, str]:
    return {name: reader.text(name) for name in reader.value}


def _check(manifest: Manifest, size: object) -> None:
    """Raises Unusable where its paths are not safe, or it contradicts itself."""
    names.check_key(manifest.namespace, manifest.name)
    if len(manifest.files) > names.MAX_FILES:
        raise Unusable(Flaw.TOO_LARGE, f"{len(manifest.files)} files")
    paths = {file.path for file in manifest.files}
    for file in manifest.files:
        names.check_path(file.path)
        if len(file.sha256) != 64 or not _HEX.issuperset(file.sha256):
            raise Unusable(Flaw.MALFORMED, f"digest of {names.shown(file.path)}")
    above = {folder for path in paths for folder in _above(path)}
    if len(paths) != len(manifest.files) or paths & above or size != manifest.size:
        raise Unusable(Flaw.MALFORMED, "files that exclude each other, or a wrong size")
    for part in manifest.facts.parts:
        if part.path not in paths:
            raise Unusable(Flaw.MALFORMED, f"GPU part {names.shown(part.name)} is in no file")


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def folders_of(files: tuple[File, ...]) -> frozenset[str]:
    """Every folder that files lie in."""
    return frozenset(folder for file in files for folder in _above(file.path))
