"""
The agent of a node, from within the cluster: where it is (GpuNode), and who may call it (Secret);
and the registry, whom the same may ask.

Called by: the controller and `kyb`. Whoever may read the Secret `kyb-client-tls` may call agents.
"""

import base64

import grpc

from kybernate.api import names
from kybernate.clients.agents import Agent, AgentAway
from kybernate.clients.copies import Copies
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.registry import Registry
from kybernate.clients.resources import GPUNODES, SECRETS

SERVER = f"kyb-nodeagent.{names.SYSTEM_NAMESPACE}.svc"
REGISTRY = f"kyb-registry.{names.SYSTEM_NAMESPACE}.svc"
CLIENT_SECRET = "kyb-client-tls"  # noqa: S105 - its name


def agent_of(kube: Kube, node: str) -> Agent:
    """The agent of this node; nothing is sent yet.

    Raises AgentAway where it does not say where it is, ApiError.
    """
    return Agent.in_cluster(_endpoint(kube, node), _credentials(kube), SERVER)


def copies_of(kube: Kube, node: str) -> Copies:
    """The same agent's Copies service. Raises as `agent_of`."""
    return Copies.in_cluster(_endpoint(kube, node), _credentials(kube), SERVER)


def registry_at(kube: Kube, address: str) -> Registry:
    """The registry at this `host:port`; nothing is sent yet. Raises AgentAway, ApiError."""
    return Registry.at([address], _credentials(kube), REGISTRY)


def _endpoint(kube: Kube, node: str) -> str:
    try:
        status = kube.get(GPUNODES, node).get("status") or {}
    except NotFound:
        raise AgentAway(f"no agent has reported from node {node}") from None
    endpoint = status.get("endpoint")
    if not endpoint:
        raise AgentAway(f"the agent of {node} does not say where it is reached (--advertise)")
    return str(endpoint)


def _credentials(kube: Kube) -> grpc.ChannelCredentials:
    data = kube.get(SECRETS, CLIENT_SECRET, names.SYSTEM_NAMESPACE)["data"]
    authority, key, certificate = (
        base64.b64decode(data[part]) for part in ("ca.crt", "tls.key", "tls.crt")
    )
    return grpc.ssl_channel_credentials(authority, key, certificate)
