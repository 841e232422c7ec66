"""
What all pods of a light node share.

Called by: `node`, which makes it once; `podlife`, which lives in it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kybernate.clients.clock import Clock
from kybernate.clients.kube import Kube
from testbed.lightnode.agent import Agent
from testbed.lightnode.plugins import Plugins
from testbed.lightnode.podrecord import Records


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Who they speak to, where their records are, and the node's habits."""

    kube: Kube
    plugins: Plugins
    agent: Agent
    records: Records
    clock: Clock
    host_ip: str
    inherited: dict[str, str]
    restart_after: float  # seconds before the second restart; then twice as long each time
    address: Callable[[], str]
