"""
Commands that run in a node to their end.

Called by: `testbed.node.realnode`.
"""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PASSED_ON = ("HOME", "TMPDIR", "LANG")
_REPOSITORY = Path(__file__).parents[2]
_PATIENCE_S = 120.0


class CommandFailed(Exception):
    """A command in a node ended with an error; the message ends with what it wrote."""


def environment(programs: Path) -> dict[str, str]:
    """The little of the caller's that programs need, with this folder first on the PATH."""
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    kept = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    return {**kept, "PATH": path, "PYTHONPATH": str(_REPOSITORY)}


def run(argv: Sequence[str], env: Mapping[str, str], stdin: str) -> str:
    """What it wrote to standard output. Raises CommandFailed."""
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
        env=env,
    )
    if done.returncode:
        said = f"{done.stdout.strip()}\n{done.stderr.strip()}".strip()
        raise CommandFailed(f"{shlex.join(argv)} ({done.returncode}): {said}")
    return done.stdout
