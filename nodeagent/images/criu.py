"""
CRIU, as runc calls it: its options, its version, and what its log says when it fails.

Called by: `nodeagent.images.runc`.
Rule: its options are in a file that only we write. A container's own (`org.criu.config`) is never
let through: options can name programs that are run as root.
"""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

_VERSION = re.compile(r"Version: ([0-9.]+)")
_ERROR = re.compile(r"Error \([^)]*\): (.*)")
# Said on the way, and not why: the ends, and a limit that it cannot raise without CAP_SYS_RESOURCE.
_NOT_WHY = ("Dumping FAILED.", "Restoring FAILED.", "rlimit: ")
_RUNC = re.compile(r'level=error msg="((?:[^"\\]|\\.)*)"')
_NO_ROOM = "No space left on device"
_GHOST_LIMIT = 2**30  # bytes of a file that has no name any more; CRIU's own is 1 MiB
_PATIENCE_S = 10.0


def options(program: str, *more: str) -> str:
    """A configuration file with what dump and restore have in common, and more lines."""
    lines = (f"ghost-limit {_GHOST_LIMIT}", f"network-lock {_lock(program)}", *more)
    return "".join(f"{line}\n" for line in lines)


@cache
def version(program: str) -> str:
    """As it says; empty where it cannot be run."""
    done = _run([program, "--version"])
    found = _VERSION.search(done.stdout) if done else None
    return found.group(1) if found else ""


def of_runc(said: str) -> str:
    """runc's own words for it, the last of them; CRIU was cut off where it lost the connection."""
    last = said.rpartition("\n")[2]
    found = _RUNC.search(last)
    words = found.group(1).replace('\\"', '"') if found else last
    return "CRIU was ended in the middle of it" if words.endswith(": EOF") else words


def sentence(log: Path) -> str:
    """Why it failed, out of its log: the first error is the cause, the others follow from it."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    if any(_NO_ROOM in line for line in lines):
        return "there is no room left for the image"
    found = (match.group(1).strip() for line in lines if (match := _ERROR.search(line)))
    return next((text for text in found if text and not text.startswith(_NOT_WHY)), "")


@cache
def _lock(program: str) -> str:
    """How packets are kept away from connections meanwhile, with what this machine has."""
    done = _run([program, "check", "--feature", "network_lock_nftables"])
    if done and not done.returncode:
        return "nftables"
    return "iptables" if shutil.which("iptables-restore") else "skip"


def _run(argv: list[str]) -> subprocess.CompletedProcess[str] | None:
    """None where it cannot be run."""
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
