"""Reaching the API server at the start of a process, or ending with a sentence.

Called by: every `__main__`, so that a wrong --kubeconfig reads like a wrong setting.
"""

import sys
from pathlib import Path

from kybernate.clients.kube import Kube
from kybernate.clients.kubeconfig import BadKubeconfig


def connect(kubeconfig: Path | None) -> Kube:
    """As `Kube.connect`. Prints why it cannot be used and raises SystemExit(2)."""
    try:
        return Kube.connect(kubeconfig)
    except (BadKubeconfig, OSError) as problem:
        named = kubeconfig or "no --kubeconfig, and this is no pod"
        sys.stderr.write(f"kubeconfig: {named}: {problem}\n")
        raise SystemExit(2) from None
