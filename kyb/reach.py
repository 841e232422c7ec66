"""Reaching the cluster and its agents, as the user's kubeconfig allows.

The kubeconfig is --kubeconfig, else KUBECONFIG, else the cluster of `kyb up` where one runs, else
~/.kube/config.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from kyb import local
from kyb.faults import fail
from kybernate.clients.kube import Kube

Kubeconfig = Annotated[
    Path | None, typer.Option(help="Who you are. Else KUBECONFIG, `kyb up`, ~/.kube/config.")
]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Of a name without one.")]


def kube(path: Path | None) -> Kube:
    """The API server. Ends the command with a sentence where no kubeconfig is there.

    Raises BadKubeconfig.
    """
    named = path or (Path(os.environ["KUBECONFIG"]) if os.environ.get("KUBECONFIG") else None)
    candidates = [named] if named else [local.admin_kubeconfig(), Path.home() / ".kube" / "config"]
    found = next((one for one in candidates if one.exists()), None)
    if found is None:
        fail(f"no kubeconfig: looked for {', '.join(map(str, candidates))}")
    return Kube.from_kubeconfig(found)
