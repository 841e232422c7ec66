"""
The real kubectl, as one plane's administrator.

Called by: `testbed.controlplane`.
Rule: nothing of the user's own kubectl is read or written, neither its configuration nor its cache.
"""

import os
import subprocess
from pathlib import Path

_PATIENCE_S = 120.0


class KubectlFailed(Exception):
    """kubectl ended with an error; the message says what it wrote to standard error."""


def run(
    program: Path, kubeconfig: Path, args: tuple[str, ...], stdin: str | None, check: bool
) -> str:
    """What it wrote to standard output. Raises KubectlFailed when `check` is set."""
    cache = kubeconfig.parent.parent / "kubectl"
    done = subprocess.run(
        [program, *args],
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(cache)},
    )
    if check and done.returncode:
        raise KubectlFailed(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout
