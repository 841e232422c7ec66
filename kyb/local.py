"""`kyb up` and `kyb down`: a cluster with light nodes and simulated GPUs on this machine."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kyb import faults
from testbed import assets, record
from testbed.kubectl import KubectlFailed
from testbed.processes import RECORD, ProcessFailed
from testbed.stack import NodeSpec, Stack
from testbed.stack import nodes as stacknodes

FAULTS = (
    ProcessFailed, KubectlFailed, ValueError, OSError, assets.BuildFailed, assets.GoUnavailable,
)  # fmt: skip
# What a cluster keeps in its folder, besides logs and the records of its processes.
KEPT = ("plane", "n", "opa", "opa-bundles", "bundle", "tls")
MARK = "made-by-kyb-up"  # a folder without it is somebody's own: nothing in it is removed
console = Console(highlight=False, soft_wrap=True)

Work = Annotated[
    Path | None, typer.Option(help="Folder of the cluster; a short path.", file_okay=False)
]


def default_work() -> Path:
    """Where `kyb up` keeps its cluster, and other commands look for it."""
    return assets.cache_folder() / "up"


def admin_kubeconfig() -> Path | None:
    """Of the cluster of `kyb up`; None where none runs."""
    folder = default_work()
    return folder / "plane" / "kubeconfigs" / "admin.kubeconfig" if _running(folder) else None


def up(
    work: Work = None,
    nodes: Annotated[int, typer.Option(help="Light nodes to start.", min=1, max=8)] = 1,
    cards: Annotated[int, typer.Option(help="80 GB GPUs per node.", min=1, max=8)] = 1,
) -> None:
    """Start a real control plane with light nodes and simulated GPUs, and keep it.

    Each start is a new cluster: edits and workloads of the one before are gone.
    """
    folder = (work or default_work()).absolute()
    if _running(folder):
        faults.fail(f"already up, in {folder}; `{_command('down', work)}` ends it")
    specs = [NodeSpec(name=f"node-{chr(ord('a') + n)}", cards=cards) for n in range(nodes)]
    try:
        _take(folder)
        stack = Stack.start(folder, specs, console.print, detached=True)
    except FAULTS as failed:
        faults.fail(f"could not start: {failed}")
    kubeconfig, kubectl = stack.plane.admin_kubeconfig, stack.plane.kubectl_program
    stack.close()
    console.print(f"\nup, in {folder}. In your shell:\n")
    console.print(f"  export KUBECONFIG={kubeconfig}")
    console.print(f"  alias kubectl={kubectl}")
    console.print(f"  alias kyb={_program()}\n")
    ending = _command("down", work)
    console.print(f"then `kubectl get gpunodes,gpuworkloads`, `kyb ps`; `{ending}` ends it.")


def down(work: Work = None) -> None:
    """End exactly what `kyb up` started."""
    folder = work or default_work()
    found = [path for path in _records(folder) if path.exists()]
    if not found:
        faults.fail(f"nothing was started in {folder}")
    for path in found:
        record.end_all(path)
    stacknodes.end_pods(folder)
    console.print("down")


def _take(folder: Path) -> None:
    """Make the folder ours, before minutes are spent on building.

    What an ended cluster left is removed: edited objects would be in the way of those applied.
    Raises ValueError where it holds anything that is not of `kyb up`, or is too long; OSError.
    """
    stacknodes.check_length(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    if folder != default_work() and not mark.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files; name an empty folder, or one of `kyb up`")
    mark.write_text("`kyb up` empties this folder when it starts here again.\n")
    for name in KEPT:
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def _command(name: str, work: Path | None) -> str:
    """As it has to be typed for this folder."""
    return f"kyb {name} --work {work}" if work else f"kyb {name}"


def _program() -> Path:
    """This program, where a shell finds it from any folder."""
    return Path(sys.executable).with_name("kyb")


def _records(folder: Path) -> list[Path]:
    """What names the cluster's processes, in the order in which they are to end."""
    return [folder / RECORD, folder / "opa" / RECORD, folder / "plane" / RECORD]


def _running(folder: Path) -> bool:
    return any(record.alive(one) for path in _records(folder) for one in record.read(path))
