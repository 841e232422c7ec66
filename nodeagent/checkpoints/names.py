"""What names may look like before they become paths, and how much a checkpoint may hold. Pure."""

import re

from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints.faults import Unusable

MAX_FILES = 100_000  # CRIU writes some tens for each process
MAX_PATH = 512  # characters
MAX_DEPTH = 8
MAX_MANIFEST = 32 * 1024 * 1024  # bytes

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL, re.ASCII)
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_PART = re.compile(r"(?!\.\.?$)[A-Za-z0-9._@+=,:~-]{1,255}", re.ASCII)


def check_key(namespace: str, name: str) -> None:
    """As the API server accepts them. Raises Unusable."""
    if not _NAMESPACE.fullmatch(namespace):
        raise Unusable(Flaw.BAD_NAME, f"namespace {shown(namespace)}")
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise Unusable(Flaw.BAD_NAME, f"checkpoint {shown(name)}")


def check_path(path: str) -> None:
    """A file's path: relative, of plain words with `/` between. Raises Unusable."""
    parts = path.split("/")
    if len(path) > MAX_PATH or len(parts) > MAX_DEPTH or not all(map(_PART.fullmatch, parts)):
        raise Unusable(Flaw.BAD_NAME, f"file {shown(path)}")


def shown(text: str) -> str:
    """Of a stranger's text: enough to recognise it, harmless in a log."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
