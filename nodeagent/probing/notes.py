"""
How each container stood last, where `kybernate-runc` finds it while we are away: one small file a
container in `standing` beside the runtime's socket.

Called by: the coordinator, at every change. Rule: a file is there whole or not at all. Rule: a disk
that takes nothing stops nobody: then the kernel's word is left.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

from kybernate.decisions import probing
from kybernate.decisions.books import Books
from kybernate.decisions.tenancy import Tenancy
from kybernate.runtime.logs import get_logger

FOLDER = "standing"


class Notes:
    """Thread safe: changes come from several threads, and the books as they are now count."""

    def __init__(self, folder: Path, books: Callable[[], Books]) -> None:
        self._folder, self._books = folder, books
        self._written: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """What an agent before us wrote of containers that are gone goes."""
        with suppress(OSError), self._lock:
            self._written = {path.stem: b"" for path in self._folder.glob("*.json")}
        self.refresh()

    def refresh(self) -> None:
        """Write what changed."""
        with self._lock:
            there = {one.life: one for one in self._books().tenancies.values() if one.life}
            for container in self._written.keys() - there.keys():
                self._remove(container)
            for container, tenancy in there.items():
                self._write(container, _note(tenancy))

    def _write(self, container: str, note: bytes) -> None:
        if self._written.get(container) == note:
            return
        draft, path = self._folder / f".{container}", self._folder / f"{container}.json"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(note)
            draft.replace(path)
            self._written[container] = note
        except OSError as error:
            get_logger(path=str(path)).warning("how it stands is not written", why=str(error))

    def _remove(self, container: str) -> None:
        del self._written[container]
        with suppress(OSError):
            (self._folder / f"{container}.json").unlink(missing_ok=True)


def _note(tenancy: Tenancy) -> bytes:
    held = tenancy.state not in probing.WITH_GPU
    say = {"say": f"{tenancy.key} is {tenancy.state}: it does not have its GPU now"} if held else {}
    return orjson.dumps({"held": "yes" if held else "no", **say})
