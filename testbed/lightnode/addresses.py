"""
Addresses of pods: loopback addresses of their own, so that every pod may listen on any port.

Called by: `node`. Rule: a node's addresses follow from its work folder, so nodes side by side on
one machine differ; 127.0.0.0/16 is left to everybody else.
"""

import hashlib
from pathlib import Path

_HOSTS = range(1, 255)


class NoAddress(Exception):
    """All of the node's addresses are taken."""


def prefix(work: Path) -> str:
    """The first three numbers, with a dot behind."""
    digest = hashlib.blake2b(str(work.absolute()).encode(), digest_size=2).digest()
    return f"127.{digest[0] % 254 + 1}.{digest[1]}."


def pick(work: Path, taken: set[str]) -> str:
    """A free address. Raises NoAddress."""
    start = prefix(work)
    for host in _HOSTS:
        if f"{start}{host}" not in taken:
            return f"{start}{host}"
    raise NoAddress(f"all {len(_HOSTS)} addresses {start}* are taken")
