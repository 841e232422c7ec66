"""Putting a file in place whole or not at all. Used by the journal and the pool."""

import os
from pathlib import Path

DRAFT = ".draft"


def seal(path: Path, content: bytes) -> None:
    """Write, fsync, rename, fsync the folder: afterwards it is there, before what was there."""
    draft = path.with_name(path.name + DRAFT)
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
