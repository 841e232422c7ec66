"""
Classes of nodes: those that policy cannot tell apart.

Called by: the extender's view and replay. Policy is asked about a handful of classes instead of
thousands of nodes.
Rule: only labels somebody may write a rule about belong to a class; a label that differs on every
node (the host name) would make every node its own class.
"""

import hashlib
from collections.abc import Iterable, Mapping

from kybernate.model.gpu import Health
from kybernate.model.node import NodeState
from kybernate.model.policy import NodeClass

LABELS = (
    "kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "karpenter.sh/capacity-type",
)
"""Well-known labels rules are written about."""
PREFIXES = ("kyb.ai/", "nvidia.com/gpu.")
"""And families of labels: our own, and what NVIDIA's feature discovery says of the product."""


def of(state: NodeState) -> NodeClass:
    """The class of a node; `id` is the same for the same content, wherever it is computed."""
    labels = dict(sorted(_that_matter(state.labels)))
    healthy = state.agent_ready and any(
        health is Health.HEALTHY for health in state.group_health.values()
    )
    return NodeClass(
        id=_id(state.product, labels, healthy),
        product=state.product,
        labels=labels,
        healthy=healthy,
    )


def _that_matter(labels: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    return ((k, v) for k, v in labels.items() if k in LABELS or k.startswith(PREFIXES))


def _id(product: str, labels: Mapping[str, str], healthy: bool) -> str:
    text = repr((product, list(labels.items()), healthy))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
