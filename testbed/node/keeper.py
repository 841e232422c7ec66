"""
Makes the namespaces, the cgroups and the network of a node, waits, and takes them down again.

Called by: `testbed.node.realnode`, as the first program of a node's group, so that it is the last
one to be ended, by `stop` as well as by the watchdog of a caller that was killed.
Rule: nothing of a node outlives its keeper but files in its work folder: processes end with the
node's first one, mounts and interfaces with its namespaces, cgroups are removed here.
Rule: should it be killed itself, only cgroups stay; `stop` removes them, or the next start.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from testbed.node import cable, cgroups, kernel
from testbed.node.cable import NoNetwork

STATE = "state.json"
_CGROUPS = "cgroups.json"
_REMOVED_WITHIN_S = 8.0
"""Within the ten seconds that a program of a group has to end (`record.GRACE_S`)."""
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A running node, as its keeper tells others."""

    keeper: int
    first: int
    """The node's first process, as the machine numbers it."""
    cgroup: str
    """Its name below every hierarchy's mount."""
    address: str
    """The node's, which is its pods' gateway, too."""
    pods: str
    """The network its pods' addresses are from, as "198.18.49.0/24"."""
    interface: str
    """The machine's way to it."""
    boot_id: str


def command(work: Path, meeting: Path, name: str) -> list[str]:
    """Arguments of this program. `meeting`: the folder where a plane's nodes find each other."""
    return [sys.executable, "-S", "-m", "testbed.node.keeper", str(work), str(meeting), name]


def read(work: Path) -> State:
    """The running node of this folder. Raises FileNotFoundError."""
    return State(**json.loads((work / STATE).read_text()))


def main() -> int:
    """Runs until SIGTERM, or until the node's first process ends."""
    work, meeting, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    remove_leftovers(work)
    with ExitStack() as undo:
        try:
            first = _build(work, meeting, name, undo)
        except (OSError, NoNetwork) as problem:
            print(f"no node: {problem}", file=sys.stderr)
            return 1
        while not asked.wait(_LOOK_EVERY_S) and first.poll() is None:
            pass
    return 0


def _build(work: Path, meeting: Path, name: str, undo: ExitStack) -> subprocess.Popen[bytes]:
    """Everything; `undo` gets how to take it down, in reverse."""
    boot_id = str(uuid.uuid4())
    outer = _launch(work, name, boot_id)
    first = _only_child(outer.pid)
    undo.callback(partial(_end, outer, first))
    plugged = cable.plug(meeting, name, first)
    undo.callback(cable.unplug, plugged)
    cgroup = f"{plugged.addresses.block.interface}-{name}"
    undo.callback(_make_cgroups(work, cgroup))
    undo.callback((work / STATE).unlink)
    state = State(
        keeper=os.getpid(),
        first=first,
        cgroup=cgroup,
        address=plugged.addresses.node,
        pods=str(plugged.addresses.pods),
        interface=plugged.addresses.block.interface,
        boot_id=boot_id,
    )
    draft = work / f".{STATE}"
    draft.write_text(json.dumps(asdict(state)))
    draft.replace(work / STATE)
    return outer


def _launch(work: Path, name: str, boot_id: str) -> subprocess.Popen[bytes]:
    """The node's first process, its mounts in place. It dies with us. Raises OSError."""
    kinds = ["--mount", "--propagation=private", "--net", "--uts", "--pid", "--fork"]
    inside = [sys.executable, "-S", "-m", "testbed.node.inside", str(work), name, boot_id]
    outer = subprocess.Popen(
        ["unshare", *kinds, "--kill-child=SIGKILL", "--", *inside],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=partial(kernel.die_with_parent, signal.SIGKILL),  # noqa: PLW1509 - no threads
    )
    assert outer.stdout is not None
    if outer.stdout.readline() != b"ready\n":
        raise OSError(f"its first process ended with {outer.wait()}")
    return outer


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def _end(outer: subprocess.Popen[bytes], first: int) -> None:
    """Returns when no process of the node is left: the kernel sees to that."""
    if outer.poll() is None:
        os.kill(first, signal.SIGKILL)
    outer.wait()


def _make_cgroups(work: Path, name: str) -> Callable[[], None]:
    """Make them; how to remove them, which takes their processes along."""
    made: dict[str, object] = {"name": name, "enabled": {}}
    (work / _CGROUPS).write_text(json.dumps(made))
    made["enabled"] = cgroups.create(name, cgroups.here())
    (work / _CGROUPS).write_text(json.dumps(made))
    return partial(remove_leftovers, work)


def remove_leftovers(work: Path) -> None:
    """The cgroups that are recorded in the work folder, with whatever runs in them."""
    try:
        made = json.loads((work / _CGROUPS).read_text())
    except FileNotFoundError:
        return
    left = cgroups.remove(made["name"], cgroups.here(), _REMOVED_WITHIN_S)
    if left:
        print(f"these cgroups would not go: {', '.join(map(str, left))}", file=sys.stderr)
        return
    cgroups.disable(made["enabled"])
    (work / _CGROUPS).unlink()


if __name__ == "__main__":
    sys.exit(main())
