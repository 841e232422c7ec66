"""
Programs that are taken from Debian packages: runc, CRIU, the CNI plugins, a static busybox.

Called by: `testbed.assets.cache`, which holds the lock and renames the finished folder.
Rule: every package is pinned by version and SHA-256 in `packages.json`; a mirror that has moved on
is told as such, and `python -m testbed.assets.pin` pins what it has now.
Rule: packages are only unpacked; their scripts never run, and the system never knows of them.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.assets import apt
from testbed.assets.apt import PackagesUnavailable
from testbed.assets.display import Display

PINS = Path(__file__).parent / "packages.json"
_LAUNCHER = """#!/bin/sh
# {program} is newer than this machine's libraries: it brings its own, and their loader.
here=$(dirname "$(readlink -f "$0")")
exec "$here/{loader}" --library-path "$here/{libraries}" "$here/{program}" "$@"
"""


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of one suite, exactly."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A program, or a folder of them, out of pinned packages."""

    name: str
    suite: str
    root: str
    """The package that is wanted; where it is `alone`, without those it depends on."""
    also: tuple[str, ...] = ()
    """What is wanted beside it, where it is `alone`: these and no more."""
    program: str
    """Its path below the folder that the packages are unpacked into."""
    alone: bool = True
    launched: str | None = None
    """The real program's path when `program` is a launcher: it runs with its own libraries."""
    seconds: int = 6

    @property
    def pins(self) -> tuple[Pin, ...]:
        """For this machine's architecture. Raises PackagesUnavailable where there are none."""
        try:
            pinned: list[Any] = json.loads(PINS.read_text())[apt.architecture()][self.name]
        except KeyError:
            raise PackagesUnavailable(
                f"no packages are pinned for {self.name} on {apt.architecture()}: "
                "run python -m testbed.assets.pin"
            ) from None
        return tuple(Pin(*one) for one in pinned)

    @property
    def version(self) -> str:
        """Debian's version of the package that is wanted."""
        return next(pin.version for pin in self.pins if pin.name == self.root)

    @property
    def folder(self) -> str:
        """Name of its folder in the cache; changes with every pin."""
        digest = hashlib.sha256(repr((self.pins, self.program, _LAUNCHER)).encode())
        return f"{self.name}-{self.version.rpartition(':')[2]}-{digest.hexdigest()[:12]}"


def unpack(asset: Packaged, draft: Path, display: Display) -> None:
    """Leave the packages' files in `draft`. Raises PackagesUnavailable."""
    display.begin(asset.name)
    private = draft / ".apt"
    private.mkdir(parents=True)
    source = apt.Apt(private, asset.suite, display.tick)
    source.update()
    _fetch(asset.pins, source, private)
    for pin in asset.pins:
        _unpack_one(_proven(pin, private), draft)
    shutil.rmtree(private)
    if asset.launched:
        _write_launcher(asset, draft)
    display.end(asset.name)


def _fetch(pins: Sequence[Pin], source: apt.Apt, into: Path) -> None:
    try:
        source.download([f"{pin.name}={pin.version}" for pin in pins], into)
    except PackagesUnavailable as problem:
        raise PackagesUnavailable(
            "the mirror does not have what is pinned; where it has moved on, "
            f"python -m testbed.assets.pin pins what it has now. {problem}"
        ) from problem


def _proven(pin: Pin, folder: Path) -> Path:
    """The file of this package, which is what was pinned. Raises PackagesUnavailable."""
    [file] = folder.glob(f"{pin.name}_*.deb")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != pin.sha256:
        raise PackagesUnavailable(f"{file.name} is not what was pinned: {found}, not {pin.sha256}")
    return file


def _unpack_one(package: Path, folder: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)


def _write_launcher(asset: Packaged, folder: Path) -> None:
    [loader] = folder.glob("usr/lib/*/ld-linux-*.so.*")
    text = _LAUNCHER.format(
        program=asset.launched,
        loader=loader.relative_to(folder),
        libraries=loader.parent.relative_to(folder),
    )
    (folder / asset.program).write_text(text)
    (folder / asset.program).chmod(0o755)
