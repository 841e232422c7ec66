"""
Who a container is: its pod's addresses and names, and the environment it was given.

Called by: `nodeagent.images.dumping` (kept in an image) and `restoring` (compared with that of the
pod it wakes in).
A running program's memory cannot be changed for it, so what differs is said three times: in the
reply to `creating` (for an event), in a file in the container (`TOLD`), and, where the container
asks for it with `KYB_WAKE_SIGNAL`, by a signal to its first process. docs/reference/runtime.md.
Rule: values of variables are for the container only; to others, only names are said.
"""

import ctypes
import fcntl
import ipaddress
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import orjson

from nodeagent.images.port import Unrestorable
from nodeagent.images.refit import Address

FILE = "identity.json"
TOLD = "run/kyb/identity.json"  # below the container's root
SIGNAL = "KYB_WAKE_SIGNAL"
SIGNALS = {name: getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2")}
_NAMED = {
    "pod": "io.kubernetes.cri.sandbox-name",
    "namespace": "io.kubernetes.cri.sandbox-namespace",
    "uid": "io.kubernetes.cri.sandbox-uid",
}
_NEW_NET, _NEW_UTS = 0x40000000, 0x04000000
_SIOCGIFCONF, _IFREQ, _MOST = 0x8912, 40, 64

Identity = Mapping[str, object]
Seen = TypeVar("Seen")


def of(config: Mapping[str, object]) -> Identity:
    """Of a container that is there or about to be made. Raises OSError."""
    annotations, process = _mapping(config.get("annotations")), _mapping(config.get("process"))
    path = namespace(config, "network")
    return {
        **{name: annotations.get(key, "") for name, key in _NAMED.items()},
        "host": _host(config),
        "addresses": [str(one) for one in (addresses(path) if path else ())],
        "environment": _environment(process),
    }


def read(image: Path) -> Identity:
    """Of an image. Raises Unrestorable."""
    try:
        known = orjson.loads((image / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise Unrestorable(f"the image's {FILE} cannot be read: {error}") from error
    return _mapping(known)


def changes(was: Identity, now: Identity) -> tuple[str, ...]:
    """What differs, in words for an event; variables by name only."""
    said = [
        f"{name} {was.get(name)} is now {now.get(name)}"
        for name in ("pod", "namespace", "host")
        if was.get(name) != now.get(name)
    ]
    before, after = _texts(was.get("addresses")), _texts(now.get("addresses"))
    if before != after:
        said.append(f"address {', '.join(before) or 'none'} is now {', '.join(after) or 'none'}")
    old, new = _mapping(was.get("environment")), _mapping(now.get("environment"))
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if names:
        said.append(f"the environment's {', '.join(names)} stay as they were")
    return tuple(said)


def moved(was: Identity, now: Identity) -> Mapping[Address, Address]:
    """New addresses by old ones: the first of each family. Raises Unrestorable."""
    try:
        before = [ipaddress.ip_address(one) for one in _texts(was.get("addresses"))]
        after = [ipaddress.ip_address(one) for one in _texts(now.get("addresses"))]
    except ValueError as error:
        raise Unrestorable(f"the image's {FILE}: {error}") from error
    first = {one.version: one for one in reversed(after)}
    return {one: first[one.version] for one in before if one.version in first and one not in after}


def told(was: Identity, now: Identity) -> bytes:
    """What the container finds at `TOLD`."""
    return orjson.dumps({"now": now, "before": was}, option=orjson.OPT_INDENT_2)


def user(config: Mapping[str, object]) -> tuple[int, int]:
    """The user and group its first process runs as."""
    chosen = _mapping(_mapping(config.get("process")).get("user"))
    return _number(chosen.get("uid")), _number(chosen.get("gid"))


def wake_signal(config: Mapping[str, object]) -> signal.Signals | None:
    """The one the container asked for; None where it asked for none that may be."""
    chosen = _environment(_mapping(config.get("process"))).get(SIGNAL, "")
    return SIGNALS.get(chosen)


def namespace(config: Mapping[str, object], kind: str) -> Path | None:
    """The pod's; None where the container has one of its own or the node's."""
    spaces = _mapping(config.get("linux")).get("namespaces")
    for one in spaces if isinstance(spaces, list) else []:
        if isinstance(one, dict) and one.get("type") == kind and one.get("path"):
            return Path(str(one["path"]))
    return None


def addresses(space: Path) -> tuple[Address, ...]:
    """Of a network namespace, without the loopback and link-local ones. Raises OSError."""
    found = _inside(space, _NEW_NET, lambda: (*_of_ipv4(), *_of_ipv6()))
    return tuple(one for one in found if not one.is_loopback and not one.is_link_local)


def _host(config: Mapping[str, object]) -> str:
    """The pod's host name; empty where the container does not have that. Raises OSError."""
    space = namespace(config, "uts")
    return _inside(space, _NEW_UTS, lambda: os.uname().nodename) if space else ""


def _inside(space: Path, kind: int, look: Callable[[], Seen]) -> Seen:
    """What is seen in a namespace, by a thread that enters it and ends. Raises OSError."""
    seen: list[Seen] = []
    failed: list[OSError] = []

    def run() -> None:
        try:
            _enter(space, kind)
            seen.append(look())
        except OSError as error:
            failed.append(error)

    inside = threading.Thread(target=run, name="namespace")
    inside.start()
    inside.join()
    if failed:
        raise failed[0]
    return seen[0]


def _enter(space: Path, kind: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(space, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, kind):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(space))
    finally:
        os.close(descriptor)


def _of_ipv4() -> list[Address]:
    room = ctypes.create_string_buffer(_IFREQ * _MOST)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("iL", len(room), ctypes.addressof(room))
        size, _ = struct.unpack("iL", fcntl.ioctl(any_socket, _SIOCGIFCONF, asked))
    raw = room.raw[:size]
    return [ipaddress.IPv4Address(raw[at + 20 : at + 24]) for at in range(0, size, _IFREQ)]


def _of_ipv6() -> list[Address]:
    try:
        lines = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
    except OSError:  # a kernel without IPv6
        return []
    return [ipaddress.IPv6Address(int(line.split()[0], 16)) for line in lines]


def _environment(process: Mapping[str, object]) -> dict[str, str]:
    return dict(text.partition("=")[::2] for text in _texts(process.get("env")))


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
