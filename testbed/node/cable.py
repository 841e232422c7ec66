"""
Plugging a node into the switch, and unplugging it: `network`'s commands, carried out.

Called by: `testbed.node.keeper`.
Rule: the switch lives as long as one keeper holds its namespace open; the last one to leave need
do nothing, but takes the machine's interface along so that it is gone when `unplug` returns.
Rule: one lock a control plane; whoever has it may read and change who is plugged in.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed import record
from testbed.node import kernel, network
from testbed.node.network import Addresses, Block

_LOCK = "lock"
_TAKEN = "File exists"


class NoNetwork(Exception):
    """The node cannot be connected; the message says what `ip` said."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A keeper that holds the switch open, as others find it."""

    keeper: record.Recorded
    descriptor: int
    block: int

    @property
    def namespace(self) -> str:
        """The switch, for as long as this keeper runs."""
        return f"/proc/{self.keeper.pid}/fd/{self.descriptor}"


@dataclass(frozen=True, slots=True)
class Cable:
    """What `plug` made: the node's addresses, and how the switch is held."""

    addresses: Addresses
    holder: Holder
    file: Path


def plug(folder: Path, name: str, first: int) -> Cable:
    """Connect the node whose first process is `first`; `folder` is where its plane's nodes meet.

    Raises NoNetwork.
    """
    with _locked(folder):
        there = next(iter(_holders(folder)), None)
        block = Block(there.block) if there else None
        switch = os.open(there.namespace, os.O_RDONLY) if there else _new_switch()
        me = record.identify("keeper", os.getpid())
        ours = f"/proc/{me.pid}/fd/{switch}"
        block = block or _reach(ours)
        holder = Holder(me, switch, block.number)
        file = folder / f"{name}.json"
        file.write_text(json.dumps(asdict(holder)))
        return Cable(_connect(block, ours, first), holder, file)


def unplug(cable: Cable) -> None:
    """Take the node away, and with the last one the machine's interface."""
    with _locked(cable.file.parent):
        cable.file.unlink(missing_ok=True)
        _try(network.unplugged(cable.addresses.port), cable.holder.namespace)
        if not list(_holders(cable.file.parent)):
            _try(network.unplugged(cable.addresses.block.interface), None)
        os.close(cable.holder.descriptor)


def _new_switch() -> int:
    """A descriptor of a new network namespace with the bridge in it."""
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        kernel.unshare_network()
        _ip(network.switch(), None)
        return os.open("/proc/self/ns/net", os.O_RDONLY)
    finally:
        kernel.setns(ours)
        os.close(ours)


def _reach(switch: str) -> Block:
    """Give the machine an interface to the switch, in a block that is free."""
    for block in network.blocks(_routes()):
        try:
            _ip(network.machine_end(block, switch), None)
        except NoNetwork as problem:
            if _TAKEN not in str(problem):
                raise
        else:
            _ip(network.plugged("machine"), switch)
            return block
    raise NoNetwork("every block of addresses for real nodes is in use on this machine")


def _connect(block: Block, switch: str, first: int) -> Addresses:
    index = network.free_index(_interfaces(switch))
    if index is None:
        raise NoNetwork(f"a control plane has room for {network.NODES} real nodes")
    addresses = block.node(index)
    _ip(network.node_end(addresses, switch), f"/proc/{first}/ns/net")
    _ip(network.plugged(addresses.port), switch)
    return addresses


def _holders(folder: Path) -> Iterator[Holder]:
    for file in folder.glob("*.json"):
        body = json.loads(file.read_text())
        holder = Holder(record.Recorded(**body.pop("keeper")), **body)
        if record.alive(holder.keeper):
            yield holder


def _routes() -> list[str]:
    shown = _run(["ip", "-4", "-json", "route", "show", "table", "all"], None)
    return [str(route["dst"]) for route in json.loads(shown)]


def _interfaces(namespace: str) -> list[str]:
    shown = _run(["ip", "-json", "link", "show"], namespace)
    return [str(link["ifname"]) for link in json.loads(shown)]


def _try(commands: str, namespace: str | None) -> None:
    """Taking down what may be gone already."""
    try:
        _ip(commands, namespace)
    except NoNetwork:
        return


def _ip(commands: str, namespace: str | None) -> None:
    _run(["ip", "-batch", "-"], namespace, commands)


def _run(argv: list[str], namespace: str | None, stdin: str = "") -> str:
    """In the machine's network namespace, or in another."""
    inside = ["nsenter", f"--net={namespace}"] if namespace else []
    done = subprocess.run(
        [*inside, *argv], input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoNetwork(f"{' '.join(argv)} ({stdin.strip()}): {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
