"""
The system calls that Python 3.11 lacks, as functions that raise OSError.

Called by: the programs that live in a node's namespaces (`keeper`, `inside`, `enter`, `forwarder`).
Rule: standard library only, no state.
"""

import ctypes
import os

_NEW_NET = 0x40000000
BIND = 0x1000
RECURSIVE = 0x4000
SHARED = 1 << 20
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def setns(descriptor: int) -> None:
    """Move this thread (for a pid namespace: its future children) into an open namespace."""
    _check(_libc.setns(descriptor, 0), "setns")


def unshare_network() -> None:
    """Give this process a network namespace of its own, which has a loopback that is down."""
    _check(_libc.unshare(_NEW_NET), "unshare")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0) -> None:
    """mount(2), without options of the file system."""
    code = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, flags, None
    )
    _check(code, f"mount {source} on {target}")


def die_with_parent(number: int) -> None:
    """Have this signal sent to this process when the thread that made it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def _check(code: int, what: str) -> None:
    if code:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
