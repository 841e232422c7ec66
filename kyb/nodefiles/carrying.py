"""
Carries a plan out on this node, each file whole or not at all.

Called by: `command`.
Rule: a program that runs is replaced, not written into; a drop-in file that containerd cannot read
is taken back at once, because with it containerd would not start again, and so is one that it does
not read at all.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kyb.doctor import containerd
from kyb.doctor.host import Host
from kyb.nodefiles.plan import PROGRAM, Plan, Remove, Write


class Broken(Exception):
    """A step failed; what it had changed is as before. The text is for people."""


def carry_out(node: Host, plan: Plan, told: Callable[[str], None]) -> None:
    """Every step in order, each told once it is done. Raises Broken."""
    for step in plan.steps:
        path = node.at(step.path)
        try:
            if isinstance(step, Write):
                _write(node, path, step)
                told(f"wrote {step.path}")
            else:
                path.unlink(missing_ok=True)
                told(f"removed {step.path}")
        except OSError as problem:
            raise Broken(f"{step.path}: {problem.strerror}") from problem
    _tidy(node, plan)


def _write(node: Host, path: Path, step: Write) -> None:
    before = path.read_bytes() if path.exists() else None
    _replace(path, step.content, step.mode)
    if not path.name.endswith(".toml"):
        return
    if reason := _not_read(node):
        if before is None:
            path.unlink()
        else:
            _replace(path, before, step.mode)
        raise Broken(f"{step.path} was taken back: {reason}")


def _not_read(node: Host) -> str:
    """Why containerd would not have our runtime, started with the files as they are; or nothing."""
    try:
        handled = containerd.find(node).handled
    except containerd.NotSeen as reason:
        return str(reason)
    return "" if handled == PROGRAM else "containerd does not read it"


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Complete and on disk, or as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(mode)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _tidy(node: Host, plan: Plan) -> None:
    """Folders of ours that a removal left empty."""
    for step in plan.steps:
        folder = node.at(step.path).parent
        if isinstance(step, Remove) and not step.path.endswith(".toml"):
            for one in (folder, folder.parent):
                with suppress(OSError):
                    one.rmdir()
