"""
Node agents: on one's own node over the unix socket, from the cluster over mTLS.

Called by: the light node and the device plugin (socket), the controller, the activator, kyb and the
demo.
Errors: `AgentAway` (Retry: nobody there, or the time was over) and `AgentRefused` (the request
makes no sense). That a workload cannot be activated is no error but an `Outcome` that is not ok.
"""

from kybernate.clients.agents.agent import Agent
from kybernate.clients.agents.end import End
from kybernate.clients.agents.errors import AgentAway, AgentRefused, translated
from kybernate.clients.agents.values import (
    CardState,
    NodeView,
    Outcome,
    PhaseTime,
    Progress,
    Sealing,
    TierState,
    WorkloadState,
)

__all__ = [
    "Agent",
    "AgentAway",
    "AgentRefused",
    "CardState",
    "End",
    "NodeView",
    "Outcome",
    "PhaseTime",
    "Progress",
    "Sealing",
    "TierState",
    "WorkloadState",
    "translated",
]
