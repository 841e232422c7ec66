"""`kyb install-node` and `kyb uninstall-node`: on a node, as root, or in a privileged pod of it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kyb import faults
from kyb.doctor.host import Host
from kyb.nodefiles import carrying, plan, standing
from kyb.nodefiles.plan import Plan, Refused

SHIPPED = Path("/usr/local/lib/kybernate")  # where the image has them
PROGRAM, PLUGIN, GUEST = "kybernate-runc", "kyb-closed.so", "libkybguest.so"
console = Console(highlight=False, soft_wrap=True)


def install_node(
    program: Annotated[
        Path, typer.Option(help="The static kybernate-runc to bring; `make native` compiles it.")
    ] = SHIPPED / PROGRAM,
    criu_plugin: Annotated[Path, typer.Option(help="CRIU's plugin to bring, likewise.")] = SHIPPED
    / PLUGIN,
    guest_library: Annotated[
        Path, typer.Option(help="The library that containers on seats preload, likewise.")
    ] = SHIPPED / GUEST,
    check: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
) -> None:
    """Put kybernate-runc, CRIU's plugin, the guest library, runtime.conf and containerd's drop-in
    file on this node.

    Doing it again changes nothing. containerd is not restarted: it is said when it has to be.
    """
    brought = plan.Brought(
        _read(program, "--program"),
        _read(criu_plugin, "--criu-plugin"),
        _read(guest_library, "--guest-library"),
    )
    node = Host()
    _do(node, plan.install(standing.look(node), brought), check)


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        faults.fail(f"{path}: {problem.strerror}; name it with {flag}")


def uninstall_node(
    check: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
) -> None:
    """Take them away again. Refused while containers that were made with them are there."""
    node = Host()
    _do(node, plan.uninstall(standing.look(node)), check)


def _do(node: Host, decided: Plan | Refused, check: bool) -> None:
    if isinstance(decided, Refused):
        faults.fail("\n".join(decided.reasons))
    if check:
        for step in decided.steps:
            kind = "remove" if isinstance(step, plan.Remove) else "write"
            _say(f"would {kind} {step.path}")
    else:
        try:
            carrying.carry_out(node, decided, _say)
        except carrying.Broken as broken:
            faults.fail(str(broken))
    for path in decided.kept:
        _say(f"kept {path}")
    for what in decided.left:
        _say(f"left to do: {what}")


def _say(text: str) -> None:
    console.print(escape(text))
