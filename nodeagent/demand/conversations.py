"""
Which of a workload's connections ask for it. Pure: sockets as they are seen, in; who asks, out.

Called by: `sockets`. What asks is one of: a connection that nobody has accepted, bytes that nobody
has read, a client that has said something and has had no answer, an accept queue that is full, so
that nobody can tell who else is there. What does not: a connection reset or closed meanwhile, a
handshake that was never finished, an address or port that policy data ignores, and what the
workload itself leaves alone: `Patience`.
Only connections that clients have made count; those the workload makes itself are its own affair,
and those the agent makes to read its metrics are nobody's.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from kybernate.model.callers import Callers
from nodeagent.demand.sockdiag import Socket, Tcp
from nodeagent.probing.netns import AGENTS_OWN

# Left alone for so long by a workload that runs and works on nothing else, it is no request.
LEFT_S = 60.0
# Likewise, of a client that spoke in the same tick of the kernel's clock as it was last answered:
# most likely it was answered then.
DOUBTED_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A workload's sockets. `clients` are connections made to it, accepted or not."""

    listeners: tuple[Socket, ...] = ()
    clients: tuple[Socket, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A socket that asks, and what for, in words. `position` changes with whatever comes. What is
    `owed` was read by the workload and has no answer; where that is in `doubt`, it may have one."""

    cookie: int
    position: int
    why: str
    owed: bool = False
    doubt: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each asking socket was left alone while the workload could have turned to it: by
    cookie, the position and seconds."""

    kept: Mapping[int, tuple[int, float]] = field(default_factory=dict)

    def over(self, ask: Ask) -> bool:
        """Whether the workload has shown that this is nothing to it."""
        position, seconds = self.kept.get(ask.cookie, (ask.position, 0.0))
        limit = DOUBTED_S if ask.doubt else LEFT_S
        return position == ask.position and seconds >= limit

    def after(self, asks: Iterable[Ask], seconds: float) -> "Patience":
        """After it ran for so long without work. What moved begins anew; what is gone is
        forgotten."""
        kept = {}
        for ask in asks:
            position, so_far = self.kept.get(ask.cookie, (ask.position, 0.0))
            kept[ask.cookie] = (ask.position, so_far + seconds if position == ask.position else 0.0)
        return replace(self, kept=kept)


def own(sockets: Iterable[Socket], inodes: frozenset[int], ports: frozenset[int]) -> Own:
    """Those of the workload with these inodes, that has ever listened at these ports."""
    mine = [one for one in sockets if one.inode in inodes or not one.inode]
    listeners = tuple(one for one in mine if one.state == Tcp.LISTEN)
    served = ports | {one.port for one in listeners}
    clients = tuple(
        one
        for one in mine
        if one.state != Tcp.LISTEN and one.port in served and one.peer != AGENTS_OWN
    )
    return Own(listeners=listeners, clients=clients)


def asks(own: Own, ignored: Callers) -> Iterator[Ask]:
    """Who asks, ignored ones left out."""
    for one in own.clients:
        ask = _ask(one)
        if ask and not ignored.covers(ipaddress.ip_address(one.peer), one.port):
            yield ask
    for one in own.listeners:
        if one.unread > one.most and one.port not in ignored.ports:
            yield Ask(one.cookie, one.unread, f"the accept queue of port {one.port} is full")


def _ask(client: Socket) -> Ask | None:
    where = f"from {client.peer} at port {client.port}"
    ended = client.state == Tcp.CLOSE_WAIT
    unread = client.unread - ended  # the end counts as a byte
    if unread > 0:
        return Ask(client.cookie, client.received, f"{unread} bytes {where} are not read")
    if not client.inode:
        why = f"a connection {where} is not accepted"
        return None if ended else Ask(client.cookie, client.received, why)
    return _owed(client, f"a client {where} has no answer")


def _owed(client: Socket, why: str) -> Ask | None:
    """Who spoke last. In the same tick nobody can tell, but for a first answer."""
    if not client.received or (client.sent and client.sent_ago < client.received_ago):
        return None
    doubt = bool(client.sent) and client.sent_ago == client.received_ago
    return Ask(client.cookie, client.received, why, owed=True, doubt=doubt)


def quiet_for(own: Own, ignored: Callers) -> float | None:
    """Seconds since any of its clients' data came or went; None without clients."""
    ages = (
        min(one.sent_ago, one.received_ago)
        for one in own.clients
        if not ignored.covers(ipaddress.ip_address(one.peer), one.port)
    )
    return min(ages, default=None)
