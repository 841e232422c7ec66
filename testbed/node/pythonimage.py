"""
An image with the Python that runs this very code, and what was installed for it.

Called by: `testbed.node.realnode`, tests.
Rule: copied, not mounted: processes map files of their image, as they do in production.
"""

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from testbed.node import images

_LEFT_OUT = {
    *("__pycache__", "dist-packages", "site-packages"),
    *("ensurepip", "idlelib", "lib2to3", "test", "tests", "tkinter", "turtledemo"),
}
# Extension modules that bring a desktop's libraries, or only serve Python's own tests; `config-` is
# what extension modules are built with.
_NOT_WANTED = ("_tkinter.", "_test", "xx", "config-")
_SITE = "/usr/local/lib/packages"


def image(
    distributions: Iterable[str] = (), packages: Iterable[Path] = (), *, busybox: Path | None = None
) -> images.Image:
    """This very interpreter with its library, some installed distributions and some packages.

    Distributions bring what they require; packages are folders, importable by their name.
    """
    tree = dict(_interpreter())
    for name in sorted(_with_requirements(distributions)):
        tree.update(_distribution(name))
    for package in packages:
        tree[f"{_SITE}/{package.name}"] = package
    program = "/usr/local/bin/python3"
    tree |= {program: Path(sys.executable).resolve(), "/usr/local/bin/python": "python3"}
    if busybox:
        tree |= images.box(busybox).tree
    tree |= images.libraries(_binaries(tree))
    home = {"PYTHONHOME": sys.base_prefix, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    path = {"PATH": "/usr/local/bin:/bin", "PYTHONPATH": _SITE}
    return images.Image(tree=tree, entrypoint=[program], environment={**home, **path})


def _stdlib() -> str:
    return sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})


def _interpreter() -> Iterator[tuple[str, images.Content]]:
    """Its library at the place where it looks for it, without what others installed into it."""
    for folder, folders, files in os.walk(_stdlib()):
        folders[:] = [name for name in folders if _wanted(name)]
        for path in (Path(folder, name) for name in files if _wanted(name)):
            if path.is_file():
                yield str(path), path


def _wanted(name: str) -> bool:
    return name not in _LEFT_OUT and not name.startswith(_NOT_WANTED)


@cache
def _requirements(name: str) -> tuple[str, ...]:
    required = metadata.requires(name) or []
    plain = [one.split(";")[0] for one in required if "extra ==" not in one]
    names = [one.translate(str.maketrans("<>=!~[(", "       ")).split()[0] for one in plain]
    return tuple(other for other in names if _installed(other))


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _with_requirements(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _requirements(name)
    return found


def _distribution(name: str) -> Iterator[tuple[str, images.Content]]:
    for file in metadata.files(name) or []:
        path = Path(str(file.locate()))
        inside = not str(file).startswith("..") and not _LEFT_OUT & set(file.parts)
        if inside and path.is_file():
            yield f"{_SITE}/{file}", path


def _binaries(tree: Mapping[str, images.Content]) -> list[Path]:
    """What needs shared libraries: the interpreter and the extension modules."""
    files = [content for content in tree.values() if isinstance(content, Path)]
    return [path for path in files if path.suffix == ".so" or os.access(path, os.X_OK)]
