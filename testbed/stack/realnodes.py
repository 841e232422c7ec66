"""
A real node of a stack: kubelet, containerd and runc, with kybernate-runc behind the RuntimeClass.

Called by: `testbed.stack.stack`, for a `NodeSpec` with `real`. Agent, device plugin and simulated
cards run as programs that enter the node, and end with it.
Rule: `why_not` first: a machine that cannot run real nodes runs light ones, and is told why.
"""

from collections.abc import Callable
from pathlib import Path

from kybernate.api import names
from testbed import assets
from testbed.assets import apt, native
from testbed.controlplane import ControlPlane
from testbed.node import machine, programs
from testbed.node import spec as node_spec
from testbed.node.realnode import RealNode
from testbed.stack.nodes import Node
from testbed.stack.programs import Where

IMAGE = "docker.io/kybernate/models:0.1.0"  # what pods call kybernate/models:0.1.0
_DISTRIBUTIONS = ("grpcio", "protobuf", "orjson", "structlog", "pyyaml")
_PACKAGES = ("kybernate", "testbed")
_REPOSITORY = Path(__file__).parents[2]
# containerd's BinaryName has no arguments and no environment of its own.
_LAUNCHER = """#!/bin/sh
export KYB_RUNTIME_CONF={settings}
exec {program} "$@"
"""


def why_not() -> str | None:
    """Why this machine runs no real node; None when it does. Builds and fetches what one runs."""
    problem = machine.why_not() or native.why_not()
    if problem:
        return problem
    try:
        programs.find()
        native.runtime()
    except (
        programs.NoPrograms,
        apt.PackagesUnavailable,
        assets.BuildFailed,
        assets.GoUnavailable,
        assets.MissingAssets,
    ) as lacking:
        return str(lacking)
    return None


def start(plane: ControlPlane, node: Node, work: Path, progress: Callable[[str], None]) -> RealNode:
    """Ready and labelled, with the models' image. Raises what `RealNode.start` raises."""
    launcher = _launcher(node)
    wanted = node_spec.NodeSpec(
        name=node.spec.name, runtimes={names.RUNTIME_CLASS: launcher}, kubelet=node.spec.kubelet
    )
    real = RealNode.start(plane, work, wanted, progress)
    try:
        progress(f"{node.spec.name}: the models' image")
        packages = [_REPOSITORY / one for one in _PACKAGES]
        real.import_image(IMAGE, real.python_image(_DISTRIBUTIONS, packages))
        plane.kubectl("label", "node", node.spec.name, f"{names.MANAGED_LABEL}=true")
    except BaseException:
        real.stop()
        raise
    return real


def where(real: RealNode) -> Where:
    """For programs that are to run on it."""
    return Where(real.state.address, real.enter, real.environment)


def _launcher(node: Node) -> Path:
    """What containerd calls: kybernate-runc with settings of this node's."""
    settings = node.folder.root / "runtime.conf"
    settings.write_text(f"socket = {node.folder.root / 'runtime.sock'}\n")
    launcher = node.folder.root / "kybernate-runc"
    launcher.write_text(_LAUNCHER.format(settings=settings, program=native.runtime()))
    launcher.chmod(0o755)
    return launcher
