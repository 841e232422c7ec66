"""
Checkpoints that are being read for a pod: they are not deleted meanwhile, and their process images
are taken out for it, into a folder of the pod's.

Called by: the attempts (from when contents are taken out of one), the wakings (until the container
that was made from it stands, or never will).
Rule: a pod reads one at a time; beginning another ends the one before. Rule: the same image is at
the same path each time, for a container that was prepared for it will do with no other.
"""

import threading
from collections.abc import Collection
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from kybernate.model.ids import PodUid
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store
from nodeagent.stories.seal import IMAGE

_KIND = "wake"  # of folders


class Readings:
    """Thread safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[PodUid, ExitStack] = {}
        self._images: dict[PodUid, Path] = {}
        self._lock = threading.Lock()

    def begin(self, uid: PodUid, namespace: str, name: str) -> None:
        """From now on a deletion of it waits."""
        reading = ExitStack()
        reading.enter_context(self._store.using(namespace, name))
        with self._lock:
            before = self._open.pop(uid, None)
            self._open[uid] = reading
        if before is not None:
            before.close()

    def take_out(self, uid: PodUid, sealed: Sealed) -> None:
        """Its process image, every byte of it checked; there until `end`. Raises Unusable, Refused,
        Retry, OSError: then nothing of it is."""
        size = sum(file.size for file in sealed.manifest.files if _is_image(file.path))
        into = self._store.plainly.folder(_named(uid), size) / _of(sealed)
        try:
            if self._store.plainly.is_on_disk(into):
                self._store.space.hold(_named(uid), size)
            into.mkdir(mode=0o700)
            sealed.take_out(IMAGE, into)
        except BaseException:
            self._remove(uid)
            raise
        with self._lock:
            self._images[uid] = into

    def image_of(self, uid: PodUid, sealed: Sealed) -> Path:
        """Where it was taken out. Raises FileNotFoundError where that did not happen, or ended."""
        with self._lock:
            image = self._images.get(uid)
        if image is None or image.name != _of(sealed):
            raise FileNotFoundError(f"the process image of {sealed.manifest.name}")
        return image

    def end(self, uid: PodUid) -> None:
        """What was to be deleted goes now. Twice is fine. Raises OSError, Refused, Retry."""
        with self._lock:
            reading = self._open.pop(uid, None)
            self._images.pop(uid, None)
        self._remove(uid)
        if reading is not None:
            reading.close()

    def _remove(self, uid: PodUid) -> None:
        self._store.plainly.remove(_named(uid))
        self._store.space.give_back(_named(uid))

    def keep(self, some: Collection[PodUid]) -> None:
        """Of what an agent before us took out, nothing but what is of these pods. Once, before
        anything begins."""
        self._store.plainly.keep(_KIND, {_named(uid) for uid in some})


def _of(sealed: Sealed) -> str:
    """The same for the same checkpoint."""
    return sha256(sealed.signature.encode()).hexdigest()[:16]


def _is_image(path: str) -> bool:
    return path.startswith(f"{IMAGE}/")


def _named(uid: PodUid) -> str:
    return f"{_KIND}-{uid}"
