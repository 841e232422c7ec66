"""A sealed checkpoint on this node's disk, and where its pieces are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kybernate.artifacts import names
from kybernate.artifacts.v0 import Manifest
from kybernate.model.checkpoint import Checkpoint
from nodeagent.checkpoints import streams

FILES, MANIFEST, SIGNATURE = "files", "manifest.json", "manifest.sig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """It never changes. `folder` holds its files; read them, write nothing there.

    `content` is the manifest as it was signed.
    """

    folder: Path
    manifest: Manifest
    content: bytes = field(repr=False)
    signature: str

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return self.manifest.size

    @property
    def checkpoint(self) -> Checkpoint:
        """As the cluster knows it."""
        return self.manifest.checkpoint(self.signature)

    def path(self, name: str) -> Path:
        """Where a file or folder of it is. Raises Unusable for what is no such name."""
        names.check_path(name)
        return self.folder / name

    def read(self, name: str) -> Iterator[bytes]:
        """A file's bytes in order. Raises OSError."""
        return streams.blocks(self.path(name))
