"""
The programs of a node, and where this machine has them from.

Called by: `testbed.node.realnode`, `testbed.node.machine`.
Rule: built, or unpacked from pinned Debian packages; on other systems, the system's own where they
are new enough. The system itself is never changed.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed import assets
from testbed.assets import apt

OLDEST_CRIU = (4, 2)
"""Older ones fail on the vdso of Linux 6.18."""
_PLUGINS = ("bridge", "host-local", "loopback")
_PLUGIN_FOLDERS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


class NoPrograms(Exception):
    """The machine lacks a program that a node needs; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Paths."""

    kubelet: Path
    containerd: Path
    shim: Path
    ctr: Path
    runc: Path
    criu: Path
    busybox: Path
    cni: Path
    """A folder with the plugins."""


def why_not() -> str | None:
    """Why this machine has not got them, and cannot get them; None when it can. Fetches nothing."""
    problem = _not_packaged()
    if problem is None:
        return None
    try:
        _of_system()
    except NoPrograms as lacking:
        return f"{lacking}, and {problem}"
    return None


def find() -> Programs:
    """All of them; builds and fetches what is missing.

    Raises NoPrograms, and what `assets.ensure` raises.
    """
    packaged = _not_packaged() is None
    found: Mapping[str, Path] = assets.ensure(assets.NODE if packaged else assets.NODE_BUILT)
    if not packaged:
        found = {**found, **_of_system()}
    return Programs(
        kubelet=found["kubelet"],
        containerd=found["containerd"],
        shim=found["containerd-shim-runc-v2"],
        ctr=found["ctr"],
        runc=found["runc"],
        criu=found["criu"],
        busybox=found["busybox"],
        cni=found["cni-plugins"],
    )


def of_images() -> dict[str, Path]:
    """runc and criu alone, with no compiler. Raises NoPrograms, and what `assets.ensure` raises."""
    if _not_packaged() is None:
        return assets.ensure(("runc", "criu"))
    found = _of_system()
    return {name: found[name] for name in ("runc", "criu")}


def _not_packaged() -> str | None:
    """Why packages are not where the programs come from; None when they are."""
    return None if assets.have(assets.NODE_PACKAGED) else apt.why_not()


def _of_system() -> dict[str, Path]:
    programs = {name: _on_path(name) for name in ("runc", "criu", "busybox")}
    version = _version(programs["criu"])
    if version < OLDEST_CRIU:
        raise NoPrograms(f"criu is {_dotted(version)}, needed is {_dotted(OLDEST_CRIU)}")
    return {**programs, "cni-plugins": _plugins()}


def _on_path(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise NoPrograms(f"{name} is not installed")
    return Path(found)


def _plugins() -> Path:
    for folder in map(Path, _PLUGIN_FOLDERS):
        if all((folder / plugin).exists() for plugin in _PLUGINS):
            return folder
    raise NoPrograms(f"the CNI plugins are in none of {', '.join(_PLUGIN_FOLDERS)}")


def _version(criu: Path) -> tuple[int, ...]:
    said = subprocess.run([criu, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Version: (\d+)\.(\d+)", said)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
