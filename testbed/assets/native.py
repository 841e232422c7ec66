"""
Our own C programs, compiled into the cache folder; `python -m testbed.assets.native` prints where.

Called by: tests, the demo, `make native`.
Rule: everything that changes the program changes its folder's name, as for everything in the cache.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.assets.cache import cache_folder
from testbed.assets.compiler import BuildFailed

RUNTIME = "kybernate-runc"
_NATIVE = Path(__file__).parents[2] / "native"
_SOURCES = _NATIVE / "runtime"
PLUGIN = "kyb-closed.so"
GUEST = "libkybguest.so"
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion")
_INPUTS = (".c", ".h", ".def")
_STANDARD = ("-std=c11", "-D_GNU_SOURCE")
STATIC = ("-Os", "-s", "-static")
SHARED = ("-Os", "-s", "-shared", "-fPIC")
PRELOADED = (
    *("-O2", "-s", "-shared", "-fPIC", "-fvisibility=hidden", "-ftls-model=initial-exec"),
    *("-Wl,-z,now", "-Wl,-z,noexecstack"),
)
CHECKED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
"""For tests: what reads or writes where it should not ends at once, with a message."""


def why_not() -> str | None:
    """Why nothing can be compiled here; None when it can."""
    return None if shutil.which("cc") else "there is no C compiler (cc)"


def runtime(flags: Sequence[str] = STATIC) -> Path:
    """kybernate-runc; compiled when it is not there yet (seconds). Raises BuildFailed."""
    sources = sorted(_SOURCES.glob("*.[ch]"))
    flags = (*_STANDARD, *_WARNINGS, *flags)
    return compiled(RUNTIME, sources, flags)


def guest(flags: Sequence[str] = PRELOADED) -> Path:
    """libkybguest.so, likewise."""
    sources = sorted(one for one in (_NATIVE / "guest").iterdir() if one.suffix in _INPUTS)
    return compiled(GUEST, sources, (*_STANDARD, *_WARNINGS, *flags))


def compiled(name: str, sources: Sequence[Path], flags: Sequence[str]) -> Path:
    """A program or library by its sources and all of the compiler's flags."""
    final = cache_folder() / f"{name}-{_key(sources, flags)}"
    if not (final / name).exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-native-", dir=final.parent) as draft:
            _compile([*flags, *map(str, sources)], Path(draft) / name)
            final.mkdir(exist_ok=True)
            (Path(draft) / name).replace(final / name)
    return final / name


def criu_plugins() -> Path:
    """The folder with our plugin of CRIU (native/criu), for its option `libdir`."""
    sources = sorted((_NATIVE / "criu").glob("*.c"))
    flags = (*_STANDARD, *_WARNINGS, *SHARED)
    return compiled(PLUGIN, sources, flags).parent


def _key(sources: Sequence[Path], flags: Sequence[str]) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:12]


def _compile(argv: Sequence[str], target: Path) -> None:
    flags = [one for one in argv if not one.endswith((".h", ".def"))]
    try:
        done = subprocess.run(
            ["cc", *flags, "-o", str(target)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as missing:
        raise BuildFailed("there is no C compiler (cc)") from missing
    if done.returncode:
        raise BuildFailed(f"compiling {target.name} failed:\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    print(runtime(), criu_plugins() / PLUGIN, guest(), sep="\n")
