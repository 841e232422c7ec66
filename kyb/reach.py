"""Reaching the cluster and its agents, as the user's kubeconfig allows.

The kubeconfig is --kubeconfig, else KUBECONFIG, else the cluster of `kyb up` where one runs, else
~/.kube/config.
"""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from kyb import local
from kyb.faults import fail
from kybernate.clients.kube import Kube
from kybernate.model.ids import WorkloadKey

Kubeconfig = Annotated[
    Path | None, typer.Option(help="Who you are. Else KUBECONFIG, `kyb up`, ~/.kube/config.")
]
Namespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="Of a name without one. Else the kubeconfig's."),
]
Workload = Annotated[str, typer.Argument(help="The workload, named as its pod, or NAMESPACE/NAME.")]


def kube(path: Path | None) -> Kube:
    """The API server. Ends the command with a sentence where no kubeconfig is there.

    Raises BadKubeconfig.
    """
    named = path or (Path(os.environ["KUBECONFIG"]) if os.environ.get("KUBECONFIG") else None)
    usual = Path.home() / ".kube" / "config"
    found = named or local.admin_kubeconfig() or usual
    if not found.exists():
        unset = f": KUBECONFIG is not set, no cluster of `kyb up` runs, and there is no {usual}"
        fail(f"no kubeconfig{f' {named}' if named else unset}")
    return Kube.from_kubeconfig(found)


def key(kube: Kube, name: str, namespace: str | None) -> WorkloadKey:
    """Of NAME or NAMESPACE/NAME. Ends the command where it is neither."""
    if not re.fullmatch(r"[^/\s]+(/[^/\s]+)?", name):
        fail(f"{name!r} is no name: expected NAME or NAMESPACE/NAME")
    return (
        WorkloadKey.parse(name) if "/" in name else WorkloadKey(namespace or kube.namespace, name)
    )
