"""
Files that hold secrets.

Called by: everything in the testbed that writes a key, a token or a kubeconfig.
Rule: mode 0600 from the first byte on, and the whole file or the one before it.
"""

import os
from pathlib import Path


def write_private(file: Path, content: bytes) -> None:
    """Replace the file by one rename; nobody but its owner can ever read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
    draft.replace(file)
