"""
The network of the real nodes of one control plane: one flat link, without routing or NAT.

    machine kyb3 198.18.48.1 ──┐
                               bridge, in a namespace of its own ("the switch")
    node n1 cni0 198.18.49.1 ──┤      pods of n1: 198.18.49.2 and up, on cni0
    node n2 cni0 198.18.50.1 ──┘      pods of n2: 198.18.50.2 and up, on cni0

Called by: `testbed.node.keeper`.
Rule: pure; commands are text for `ip -batch`, addresses are values.
Rule: the switch is not in the machine's own namespace: there, a container engine's firewall rules
would see our frames, and a crash would leave it behind.
Rule: an interface's name on the machine is the claim on its block of addresses, because making it
twice fails.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BRIDGE = "cni0"
SERVICE_ADDRESS = "10.0.0.1"
"""Where pods expect the API server (the first address of `components.SERVICE_ADDRESSES`)."""
# Set aside for testing networks (RFC 2544): nobody's site is there.
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
_BLOCK_BITS = 20
_NODE_BITS = 24
_BLOCKS = 32
NODES = 15
"""How many nodes a block has room for; its first /24 is the machine's."""


@dataclass(frozen=True, slots=True)
class Block:
    """The addresses of all nodes of one control plane."""

    number: int

    @property
    def network(self) -> ipaddress.IPv4Network:
        """A /20."""
        first = int(_RANGE.network_address) + (self.number << (32 - _BLOCK_BITS))
        return ipaddress.IPv4Network((first, _BLOCK_BITS))

    @property
    def interface(self) -> str:
        """The machine's way into it."""
        return f"kyb{self.number}"

    @property
    def machine(self) -> str:
        """The machine's address in it."""
        return str(self.network[1])

    def node(self, index: int) -> "Addresses":
        """Those of the node with this index, 1 to NODES."""
        mine = ipaddress.IPv4Network((int(self.network[index << 8]), _NODE_BITS))
        return Addresses(self, index, mine)


@dataclass(frozen=True, slots=True)
class Addresses:
    """One node's part of a block."""

    block: Block
    index: int
    pods: ipaddress.IPv4Network
    """A /24; its first address is the node's own."""

    @property
    def node(self) -> str:
        """The node's address, which is its pods' gateway, too."""
        return str(self.pods[1])

    @property
    def port(self) -> str:
        """Its interface at the switch."""
        return f"n{self.index}"


def blocks(routes: Iterable[str]) -> Iterator[Block]:
    """Blocks that none of these routes (as `ip route` shows destinations) leads to."""
    taken = [ipaddress.IPv4Network(one, strict=False) for one in routes if _is_network(one)]
    for number in range(_BLOCKS):
        if not any(Block(number).network.overlaps(other) for other in taken):
            yield Block(number)


def switch() -> str:
    """In the switch's namespace: the bridge."""
    return "link set lo up\nlink add sw type bridge\nlink set sw up\n"


def machine_end(block: Block, switch_namespace: str) -> str:
    """In the machine's namespace: the way into the switch; fails when the block is taken."""
    name = block.interface
    return (
        f"link add {name} type veth peer name machine netns {switch_namespace}\n"
        f"address add {block.machine}/{_BLOCK_BITS} dev {name}\n"
        f"link set {name} up\n"
    )


def plugged(port: str) -> str:
    """In the switch's namespace: a port becomes one of the bridge's."""
    return f"link set {port} master sw up\n"


def unplugged(port: str) -> str:
    """In the switch's namespace: the port goes, and with it its other end."""
    return f"link delete {port}\n"


def node_end(node: Addresses, switch_namespace: str) -> str:
    """In the node's namespace: the bridge for its pods, with a cable to the switch.

    Pods find the API server at its service address on their node, where `forwarder` listens.
    The bridge's hardware address is given: otherwise it changes with every pod that comes.
    """
    hardware = ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(node.node).packed)
    return (
        "link set lo up\n"
        f"address add {SERVICE_ADDRESS}/32 dev lo\n"
        f"link add uplink type veth peer name {node.port} netns {switch_namespace}\n"
        f"link add {BRIDGE} address 0a:58:{hardware} type bridge\n"
        f"link set uplink master {BRIDGE} up\n"
        f"address add {node.node}/{_BLOCK_BITS} dev {BRIDGE}\n"
        f"link set {BRIDGE} up\n"
    )


def free_index(ports: Iterable[str]) -> int | None:
    """An index no port of the switch is named for; None when all are taken."""
    taken = set(ports)
    return next((n for n in range(1, NODES + 1) if f"n{n}" not in taken), None)


def pod_range(pods: str) -> dict[str, str]:
    """host-local's range for a node with these pods (a /24).

    Its `subnet` is the whole block: that is how wide the link is, and addresses take it from there.
    """
    mine = ipaddress.IPv4Network(pods)
    return {
        "subnet": str(mine.supernet(new_prefix=_BLOCK_BITS)),
        "rangeStart": str(mine[2]),
        "rangeEnd": str(mine[-2]),
        "gateway": str(mine[1]),
    }


def _is_network(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return False
    return True
