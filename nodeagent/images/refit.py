"""
An image made to fit another pod: which connections stay, which are closed, which address things
listen on, and the host name. And, before it is finished, rid of a signal of ours.

Called by: `nodeagent.images.restoring`, on a restoration's own copy of the image file.
Rules:
1. A connection whose two ends are both in the image stays, be it over the loopback or over the
   pod's own address, which is exchanged for the new one at both ends.
2. Every other TCP connection is closed: the program finds it as one that the other side ended.
3. What is bound to the pod's old address is bound to the new one.
"""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.images import wire
from nodeagent.images.wire import Message

FILE = "files.img"
HOST_NAMES = "utsns-*.img"
# file_entry and inet_sk_entry of CRIU's images/fdinfo.proto and images/sk-inet.proto
_ISK = 4
_FAMILY, _TYPE, _PROTO, _STATE = 3, 4, 5, 6
_SRC_PORT, _DST_PORT, _SRC, _DST = 7, 8, 11, 12
_IFNAME, _SHUTDOWN = 17, 19
_TCP_CLOSE = 7
_NODE_NAME = 1  # of utsns_entry
CORES = "core-*.img"
# The queues of core_entry: its task's (tc.signals_s) and its thread's (thread_core.signals_p).
_QUEUES = ((3, 10), (5, 9))
_SIGNALS = _SIGINFO = 1

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class _Ends:
    proto: int
    source: tuple[Address, int]
    target: tuple[Address, int]

    @property
    def mirrored(self) -> "_Ends":
        return _Ends(self.proto, self.target, self.source)


def sockets(source: Path, into: Path, moved: Mapping[Address, Address]) -> int:
    """Write an image's `files.img` anew, with the addresses that moved; how many were closed.

    Raises wire.NotAnImage, OSError.
    """
    head, entries = wire.read(source)
    files = [Message(entry) for entry in entries]
    kept = _kept(files)
    closed = 0
    for file in files:
        found = file.message(_ISK)
        if found is None:
            continue
        if _connected(found) and _plain(_ends(found)) not in kept:
            _close(found)
            closed += 1
        else:
            _move(found, moved)
        file.put(_ISK, found.raw())
    into.unlink(missing_ok=True)  # a link to the image's own
    wire.write(into, head, [file.raw() for file in files])
    return closed


def host_name(source: Path, into: Path, host: str) -> None:
    """Write an image's host name anew: CRIU would give the old one to the whole new pod.

    Raises wire.NotAnImage, OSError.
    """
    head, entries = wire.read(source)
    names = [Message(entry) for entry in entries]
    for one in names:
        one.put(_NODE_NAME, host.encode())
    into.unlink(missing_ok=True)
    wire.write(into, head, [one.raw() for one in names])


def without_signal(core: Path, number: int) -> None:
    """Take a pending signal out of an image's process. Raises wire.NotAnImage, OSError."""
    head, entries = wire.read(core)
    found = [Message(entry) for entry in entries]
    for one in found:
        for part, queue in _QUEUES:
            inner = one.message(part)
            signals = inner.message(queue) if inner is not None else None
            if inner is None or signals is None:
                continue
            kept = [raw for raw in signals.blobs(_SIGNALS) if _number_of(raw) != number]
            signals.put(_SIGNALS, *kept)
            inner.put(queue, signals.raw())
            one.put(part, inner.raw())
    wire.write(core, head, [one.raw() for one in found])


def _number_of(entry: bytes) -> int:
    """Of a siginfo_entry, whose bytes begin with the signal's number."""
    info = Message(entry).blobs(_SIGINFO)
    return int.from_bytes(info[0][:4], "little") if info else 0


def _kept(files: Sequence[Message]) -> frozenset[_Ends]:
    """The connections with both ends here."""
    found = (file.message(_ISK) for file in files)
    ends = {_plain(_ends(one)) for one in found if one is not None and _connected(one)}
    return frozenset(one for one in ends if one.mirrored in ends)


def _connected(isk: Message) -> bool:
    return isk.number(_PROTO) == socket.IPPROTO_TCP and isk.number(_DST_PORT) != 0


def _ends(isk: Message) -> _Ends:
    return _Ends(
        isk.number(_PROTO),
        (_address(isk, _SRC), isk.number(_SRC_PORT)),
        (_address(isk, _DST), isk.number(_DST_PORT)),
    )


def _plain(ends: _Ends) -> _Ends:
    """An IPv4 address is the same one when a socket of IPv6 has it."""
    return _Ends(
        ends.proto,
        (_mapped(ends.source[0]), ends.source[1]),
        (_mapped(ends.target[0]), ends.target[1]),
    )


def _mapped(address: Address) -> Address:
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return inner or address


def _address(isk: Message, number: int) -> Address:
    """Raises NotAnImage."""
    raw = b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in isk.numbers(number))
    family = isk.number(_FAMILY)
    if (family, len(raw)) == (socket.AF_INET, 4):
        return ipaddress.IPv4Address(raw)
    if (family, len(raw)) == (socket.AF_INET6, 16):
        return ipaddress.IPv6Address(raw)
    raise wire.NotAnImage(f"a socket of family {family} with an address of {len(raw)} bytes")


def _close(isk: Message) -> None:
    """As a socket that was made and never connected, which is what the end of one looks like."""
    isk.put(_STATE, _TCP_CLOSE)
    for port in (_SRC_PORT, _DST_PORT):
        isk.put(port, 0)
    for address in (_SRC, _DST):
        isk.put(address, *(0 for _ in isk.numbers(address)))
    for gone in (_IFNAME, _SHUTDOWN):
        isk.put(gone)


def _move(isk: Message, moved: Mapping[Address, Address]) -> None:
    for number in (_SRC, _DST):
        if not isk.numbers(number):
            continue
        was = _address(isk, number)
        now = moved.get(_mapped(was))
        if now is None:
            continue
        if isinstance(was, ipaddress.IPv6Address) and isinstance(now, ipaddress.IPv4Address):
            now = ipaddress.IPv6Address(f"::ffff:{now}")
        words = (now.packed[at : at + 4] for at in range(0, len(now.packed), 4))
        isk.put(number, *(int.from_bytes(word, "little") for word in words))
