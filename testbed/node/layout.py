"""
The files that a node's programs read, written into its work folder.

Called by: `testbed.node.realnode`.
Rule: `configuration` says what is in them; here is where they are.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import orjson

from testbed.node import configuration, machine
from testbed.node.keeper import State
from testbed.node.programs import Programs
from testbed.node.spec import NodeSpec
from testbed.pki import Authority

CONTAINERD = "containerd.toml"
KUBELET = "kubelet.json"
BIN = "bin"
"""The folder that is first on the PATH of what runs in the node."""
_NETWORKS = "cni"
_CRIU = "criu.conf"
_LAUNCHER = """#!/bin/sh
export CRIU_CONFIG_FILE="${{CRIU_CONFIG_FILE:-{config}}}"
exec {criu} "$@"
"""


def write_programs(work: Path, programs: Programs) -> None:
    """A folder of programs as containerd, runc and people look for them."""
    folder = work / BIN
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, program in _named(programs).items():
        (folder / name).symlink_to(program)
    launcher = folder / "criu"
    launcher.write_text(_LAUNCHER.format(config=work / _CRIU, criu=programs.criu))
    launcher.chmod(0o755)


def write_criu(work: Path, lock: str) -> None:
    """How CRIU keeps packets away while it dumps connections."""
    (work / _CRIU).write_text(configuration.criu(lock))


def write_containerd(work: Path, wanted: NodeSpec, state: State, programs: Programs) -> None:
    """Its configuration, and that of the network its pods are given."""
    runtimes = {"runc": programs.runc}
    runtimes |= {name: program or programs.runc for name, program in wanted.runtimes.items()}
    overlay = machine.overlay_works(work / "overlay")
    networks = work / _NETWORKS
    networks.mkdir(exist_ok=True)
    (networks / "10-kyb.conflist").write_bytes(orjson.dumps(configuration.cni(state.pods)))
    text = configuration.containerd(
        work / "containerd",
        programs.cni,
        networks,
        runtimes,
        "overlayfs" if overlay else "native",
    )
    (work / CONTAINERD).write_text(text)


def write_kubelet(work: Path, wanted: NodeSpec, state: State, authority: Authority) -> None:
    """Its configuration and the certificate it serves with."""
    pair = authority.issue(
        f"kubelet.{wanted.name}.{state.address}",
        common_name=f"system:node:{wanted.name}",
        organization="system:nodes",
        addresses=[state.address, wanted.name],
    )
    serving = (pair.certificate, pair.key)
    body = configuration.kubelet(state, authority.files.certificate, serving, wanted.kubelet)
    (work / KUBELET).write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2))


def _named(programs: Programs) -> Mapping[str, Path]:
    return {
        "containerd-shim-runc-v2": programs.shim,
        "ctr": programs.ctr,
        "runc": programs.runc,
    }
