"""
The cache folder: which binaries are there, and getting those that are not.

Called by: everything that needs a binary, through `ensure`.
Rule: a folder under its final name is whole, because it got that name by one rename.
Rule: one build at a time per cache folder; the lock is handed on to the compiler, so even a build
whose caller was killed keeps the next caller waiting, which then finds Go's own cache warm.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from testbed.assets import compiler, debian, toolchain
from testbed.assets.apt import PackagesUnavailable
from testbed.assets.catalog import CATALOG, USUAL, Asset
from testbed.assets.compiler import BuildFailed
from testbed.assets.debian import Packaged
from testbed.assets.display import Display, for_this_terminal

__all__ = ["BuildFailed", "MissingAssets", "cache_folder", "ensure", "have"]

Anything = Asset | Packaged
_DRAFT = ".draft-"
_LOCK_PATIENCE_S = 1.0


class MissingAssets(Exception):
    """The folder named by KYB_ASSETS lacks binaries; the message names all of them."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where built binaries are kept: `$XDG_CACHE_HOME` or `~/.cache`, then kybernate/assets."""
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kybernate" / "assets"


def ensure(
    names: Iterable[str] = USUAL,
    *,
    display: Display | None = None,
    catalog: Mapping[str, Anything] = CATALOG,
) -> dict[str, Path]:
    """The paths of these binaries; builds what is missing (minutes, the first time).

    Raises MissingAssets, BuildFailed, GoUnavailable or PackagesUnavailable; KeyError for a name not
    in the catalog.
    """
    assets = [catalog[name] for name in names]
    prebuilt = os.environ.get("KYB_ASSETS")
    if prebuilt:
        return _prebuilt(Path(prebuilt), assets)
    root = cache_folder()
    if any(_missing(root, assets)):
        _build_missing(root, assets, display or for_this_terminal())
    return {asset.name: program(root, asset) for asset in assets}


def have(names: Iterable[str]) -> bool:
    """Whether `ensure` would only look."""
    if os.environ.get("KYB_ASSETS"):
        return True
    try:
        return not _missing(cache_folder(), [CATALOG[name] for name in names])
    except PackagesUnavailable:
        return False


def program(root: Path, asset: Anything) -> Path:
    """Where this asset's binary is, or will be."""
    return root / asset.folder / asset.program


def _prebuilt(folder: Path, assets: Sequence[Anything]) -> dict[str, Path]:
    paths = {asset.name: (folder / asset.name).absolute() for asset in assets}
    absent = [name for name, path in paths.items() if not os.access(path, os.X_OK)]
    if absent:
        raise MissingAssets(f"KYB_ASSETS={folder} lacks: {', '.join(absent)}")
    return paths


def _missing(root: Path, assets: Sequence[Anything]) -> list[Anything]:
    return [asset for asset in assets if not program(root, asset).exists()]


def _build_missing(root: Path, assets: Sequence[Anything], display: Display) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with display, _locked(root, display) as lock:
        missing = _missing(root, assets)  # another caller may have built them while we waited
        if not missing:
            return
        _sweep(root)
        go = _go(root, missing, display)
        display.plan({asset.name: asset.seconds for asset in missing})
        for asset in missing:
            draft = root / f"{_DRAFT}{asset.folder}"
            if isinstance(asset, Packaged):
                debian.unpack(asset, draft, display)
            else:
                compiler.build(asset, go, draft, display=display, lock=lock)
            _seal(draft, root / asset.folder)


def _go(root: Path, missing: Sequence[Anything], display: Display) -> Path:
    """The compiler; packages alone need none, and then none is looked for."""
    if all(isinstance(asset, Packaged) for asset in missing):
        return Path("go")
    return toolchain.find(root.parent, partial(display.waiting, "Go is being installed"))


def _seal(draft: Path, final: Path) -> None:
    """Give a finished folder its name; one that stands there lost its binary (see `_missing`)."""
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)


def _sweep(root: Path) -> None:
    """Remove what an interrupted build left; the lock says that nobody is at work there."""
    for draft in root.glob(f"{_DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _locked(root: Path, display: Display) -> Iterator[int]:
    """Holds the cache folder's lock; yields its file descriptor. Waits as long as it takes."""
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor):
            display.waiting("another build is at work in this cache folder")
            time.sleep(_LOCK_PATIENCE_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
