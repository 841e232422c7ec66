"""
What names may look like before they become paths or keys of a store, and which keys there are.

Called by: both formats' codecs, stores. Rule: a stranger's text becomes a path or a key only here.
"""

import re
from collections.abc import Sequence

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw

MAX_FILES = 100_000  # CRIU writes some tens for each process
MAX_PATH = 512  # characters
MAX_DEPTH = 8
MAX_MANIFEST = 32 * 1024 * 1024  # bytes of format v0

MANIFESTS, DOMAINS = "manifests", "domains"  # the two halves of a store

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL, re.ASCII)
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_GOLD = re.compile(rf"gold(?:\.{_LABEL})+", re.ASCII)  # no namespace has a dot
_KEY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
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


def check_domain(namespace: str, domain: str) -> None:
    """A namespace uses its own domain, or one of gold images. Raises Unusable."""
    if domain != namespace and (not _GOLD.fullmatch(domain) or len(domain) > 253):
        raise Unusable(Flaw.FOREIGN_DOMAIN, f"{shown(domain)} in namespace {shown(namespace)}")


def gold_domain(namespace: str, name: str) -> str:
    """The domain of a gold image's own; whoever wakes from it is in it or not, but no other image
    is. Raises Unusable where its name is too long for one."""
    domain = f"gold.{namespace}.{name}"
    check_domain(namespace, domain)
    return domain


def check_key_id(key: str) -> None:
    """Of a domain's key: 16 hex digits. Raises Unusable."""
    if not _KEY_ID.fullmatch(key):
        raise Unusable(Flaw.MALFORMED, f"key {shown(key)}")


def exclude_each_other(paths: Sequence[str]) -> bool:
    """Whether one is named twice, or lies below another that is a file."""
    distinct = set(paths)
    return len(distinct) != len(paths) or bool(distinct & {up for p in paths for up in above(p)})


def above(path: str) -> list[str]:
    """The folders that a path lies in, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def is_pack(key: str) -> bool:
    """Whether a pack stands there, as `pack_key` says."""
    parts = key.split("/")
    return len(parts) == 5 and parts[0] == DOMAINS and parts[2] == "packs"


def manifest_key(namespace: str, name: str) -> str:
    """Where its manifest is. Raises Unusable."""
    check_key(namespace, name)
    return f"{MANIFESTS}/{namespace}/{name}"


def pack_key(domain: str, pack: str) -> str:
    """Where a pack is; `pack` is its name, 64 hex digits."""
    return f"{DOMAINS}/{domain}/packs/{pack[:2]}/{pack}"


def record_key(domain: str, key: str) -> str:
    """Where the record of a domain's key is; `key` is its id."""
    return f"{DOMAINS}/{domain}/keys/{key}.json"


def shown(text: str) -> str:
    """Of a stranger's text: enough to recognise it, harmless in a log."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
