"""Kybernate itself, running: our processes on a real control plane, with light nodes.

Called by the demo, `kyb up`, tests and benchmarks. Processes are started as programs and spoken to
over their protocols; nothing of theirs is imported.

install   our objects into the API server (the manifests, with webhooks at local addresses)
nodes     the programs of one light node: simulated GPU, agent, device plugin, light node
control   controller, OPA, extender, webhook, scheduler
stack     the whole, in the order in which each needs the one before
"""

from testbed.stack.nodes import NodeSpec
from testbed.stack.stack import Stack

__all__ = ["NodeSpec", "Stack"]
