"""
Whether this machine can run real nodes.

Called by: `testbed.node.realnode`, the tests' fixtures, the demo: who cannot skips.
Rule: asked of the machine by trying, not by comparing versions; leaves nothing behind.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from testbed.node import cgroups, programs

_TOOLS = ("cc", "ip", "ldd", "mount", "nsenter", "unshare")
_NAMESPACES = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--propagation=private"]
_V2_NEEDS = {"cpu", "cpuset", "memory", "pids"}


def why_not() -> str | None:
    """Why real nodes cannot run here, in a sentence; None when they can."""
    checks: tuple[Callable[[], str | None], ...] = (
        _system,
        _root,
        _tools,
        _namespaces,
        _links,
        _cgroups,
        programs.why_not,
    )
    return _first_of(checks)


def why_no_containers() -> str | None:
    """The same of containers by runc alone, without a node around them."""
    return _first_of((_system, _root, _tools, _namespaces))


def _first_of(checks: Iterable[Callable[[], str | None]]) -> str | None:
    return next((problem for check in checks if (problem := check())), None)


def overlay_works(folder: Path) -> bool:
    """Whether containerd can stack file systems in this folder; in a container it often cannot."""
    for name in ("lower", "upper", "work", "merged"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = ",".join(f"{name}dir={folder / name}" for name in ("lower", "upper", "work"))
    mounting = ["mount", "-t", "overlay", "-o", options, "overlay", str(folder / "merged")]
    works = _runs(["unshare", "--mount", *mounting])
    shutil.rmtree(folder)
    return works


def _system() -> str | None:
    return None if sys.platform == "linux" else "real nodes need Linux"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "real nodes need root"


def _tools() -> str | None:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"these programs are not installed: {', '.join(missing)}" if missing else None


def _namespaces() -> str | None:
    mounting = ["mount", "-t", "proc", "proc", "/proc"]
    if _runs([*_NAMESPACES, "--", *mounting]):
        return None
    return "this machine does not let us make mount, network and process namespaces"


def _links() -> str | None:
    kinds = (["veth", "peer", "name", "probe1"], ["bridge"])
    adding = ["unshare", "--net", "ip", "link", "add", "name", "probe0", "type"]
    if all(_runs([*adding, *kind]) for kind in kinds):
        return None
    return "this kernel has no veth pairs or no bridges"


def _cgroups() -> str | None:
    there = cgroups.here()
    if not there:
        return "no cgroups are mounted"
    hidden = [str(one.mount) for one in there if one.root != "/"]
    if hidden:
        return f"only a part of the cgroups is shown at {', '.join(hidden)}"
    top = next((one for one in there if one.unified), None)
    if len(there) == 1 and top and _V2_NEEDS - top.controllers:
        return f"cgroup v2 lacks {', '.join(sorted(_V2_NEEDS - top.controllers))}"
    return next(filter(None, map(_writable, there)), None)


def _writable(hierarchy: cgroups.Hierarchy) -> str | None:
    probe = hierarchy.mount / f"kyb-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as problem:
        return f"cgroups cannot be made: {problem}"
    return None


def _runs(argv: list[str]) -> bool:
    return not subprocess.run(argv, capture_output=True, check=False).returncode
