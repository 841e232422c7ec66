"""
Stand-ins for what the Dockerfile starts from: a Debian made from its mirror, with Debian's
own Python, and OPA as the testbed built it.

Called by: `testbed.imaging.trial`.
Rule: they carry the names that the Dockerfile asks for, whatever versions are in them, and that is
said.
Rule: pip finds its index in them as it does on this machine.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed import assets
from testbed.assets import apt
from testbed.assets.catalog import CATALOG
from testbed.imaging.buildah import Buildah

SUITE = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP = Path("/etc/pip.conf")
_OF_PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "PIP_CERT")


class BaseFailed(Exception):
    """A stand-in cannot be made; the message says why."""


def make(builder: Buildah, wanted: set[str]) -> Iterator[str]:
    """All of them, by the names the Dockerfile has; each with what is in it, in a line.

    Raises BaseFailed, BuildahFailed.
    """
    for name in sorted(wanted):
        kind = name.partition(":")[0]
        if kind not in STAND_INS:
            there = ", ".join(STAND_INS)
            raise BaseFailed(f"there is no stand-in for {name} (there are: {there})")
        container, told = STAND_INS[kind](builder)
        builder.commit(container, f"docker.io/{'' if '/' in kind else 'library/'}{name}")
        yield f"for {name}: {told}"


def debian_tree() -> Path:
    """A tar file of a small Debian with Python; made once, a minute. Raises BaseFailed."""
    folder = assets.cache_folder().parent / "bases"
    final = folder / f"debian-{SUITE}-{apt.architecture()}.tar"
    if final.exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".draft-{os.getpid()}.tar"
    program = assets.ensure(["mmdebstrap"])["mmdebstrap"]
    options = ("--quiet", "--mode=root", "--variant=apt", f"--include={_PACKAGES}")
    argv = ["perl", str(program), *options, SUITE, str(draft), apt.mirror().uri]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BaseFailed(f"mmdebstrap: {done.stderr.strip()[-2000:]}")
        draft.rename(final)
    finally:
        draft.unlink(missing_ok=True)
    return final


def _debian(builder: Buildah) -> tuple[str, str]:
    """A container of it, and what is in it."""
    container = builder.new("scratch")
    builder.add(container, debian_tree(), "/")
    if _AUTHORITIES.exists():
        builder.add(container, _AUTHORITIES, str(_AUTHORITIES))
    if _PIP.exists():
        builder.add(container, _PIP, str(_PIP))
    told = [f"--env={name}={os.environ[name]}" for name in _OF_PIP if name in os.environ]
    builder.configure(container, "--cmd=bash", *told)
    return container, f"Debian {builder.run(container, ['cat', '/etc/debian_version']).strip()}"


def _python(builder: Buildah) -> tuple[str, str]:
    """`python` is what the official image calls it."""
    container, debian = _debian(builder)
    builder.run(container, ["ln", "-s", "/usr/bin/python3", "/usr/local/bin/python"])
    return container, f"{debian} with {builder.run(container, ['python', '--version']).strip()}"


def _opa(builder: Buildah) -> tuple[str, str]:
    container = builder.new("scratch")
    builder.add(container, assets.ensure(["opa"])["opa"], "/opa")
    return container, f"OPA {CATALOG['opa'].version}"


STAND_INS: dict[str, Callable[[Buildah], tuple[str, str]]] = {
    "debian": _debian,
    "python": _python,
    "openpolicyagent/opa": _opa,
}
