"""Whose connections say nothing about demand: scrapers and the like, by policy's data."""

import ipaddress
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """By where they come from, or by the port of the pod they come to."""

    networks: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset()

    def covers(self, peer: Address, port: int) -> bool:
        """Whether a connection from there to this port is one of theirs."""
        return port in self.ports or any(peer in network for network in self.networks)


NOBODY = Callers()
