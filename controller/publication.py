"""
The bundle that is in force: the last good one, kept on disk, whatever is offered after it.

Called by: the loop that watches the ConfigMap (offers) and `bundle_app` (serves).
Rule 1: a refused offer changes nothing. Rule 2: what is on disk is whole or not there (written
beside, synced, renamed); one that cannot be read is put aside, never served.
"""

import gzip
import io
import os
import tarfile
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path

import orjson

from controller import bundles
from controller.bundles import Bundle, BundleRefused
from kybernate.api import policy_files
from kybernate.model.ids import Revision

_KEPT = "kyb.tar.gz"
_MANIFEST = ".manifest"


class Publication:
    """Thread safe: one offer at a time, read from anywhere."""

    def __init__(self, *, opa: Path, folder: Path) -> None:
        """`folder` keeps the last good bundle; it is made where it is absent."""
        self._opa = opa
        self._kept = folder / _KEPT
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._offering = threading.Lock()
        self._current = _load(self._kept)
        self._refused: BundleRefused | None = None

    @property
    def current(self) -> Bundle | None:
        """What OPA is given; None until something good was offered."""
        return self._current

    @property
    def refused(self) -> BundleRefused | None:
        """Why the latest offer is not in force; None when it is."""
        return self._refused

    def offer(self, files: Mapping[str, str]) -> Bundle:
        """Publish these policies, and return them. The same ones again cost nothing.

        Raises BundleRefused, OpaUnusable, OSError (the disk); what was in force then stays so.
        """
        with self._offering:
            revision = policy_files.revision_of(files)
            if self._current is None or self._current.revision != revision:
                self._replace(files)
            self._refused = None
            return self._in_force()

    def adopt(self, content: bytes) -> bool:
        """Take over a bundle that was published before, where there is none; whether that was so.

        One that cannot be read is not taken.
        """
        with self._offering:
            revision = _revision(content) if self._current is None else None
            if revision is None:
                return False
            self._current = Bundle(revision=revision, content=content)
            return True

    def _replace(self, files: Mapping[str, str]) -> None:
        try:
            bundle = bundles.build(files, self._opa)
        except BundleRefused as refused:
            self._refused = refused
            raise
        _seal(self._kept, bundle.content)
        self._current = bundle

    def _in_force(self) -> Bundle:
        assert self._current is not None
        return self._current


def _seal(path: Path, content: bytes) -> None:
    """Put the whole file in place, or leave what was there."""
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(path: Path) -> Bundle | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    revision = _revision(content)
    if revision is None:
        path.replace(path.with_name(path.name + ".unreadable"))
        return None
    return Bundle(revision=revision, content=content)


def _revision(content: bytes) -> Revision | None:
    """What the bundle's manifest says, once all of the bundle could be read."""
    try:
        whole = gzip.decompress(content)  # to the last byte, which tarfile would not look at
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            members = {member.name.lstrip("/"): member for member in archive.getmembers()}
            file = archive.extractfile(members[_MANIFEST])
            manifest = orjson.loads(file.read()) if file else {}
            return Revision(manifest["revision"])
    except (tarfile.TarError, zlib.error, OSError, EOFError, KeyError, TypeError, ValueError):
        return None
