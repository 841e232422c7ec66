"""The agent's second server: mTLS, for the controller, kyb and the activator."""

from pathlib import Path

import grpc
import pytest

from kybernate.api import names
from kybernate.clients.agents import Agent, AgentAway, AgentRefused
from kybernate.model.workload import State
from kybernate.runtime.tls import TlsFiles
from kybernate.testing.agentnode import AgentNode
from testbed import ports
from testbed.pki import Authority


def _folder(authority: Authority, name: str) -> Path:
    """As a Secret is mounted."""
    pair = authority.issue(name, common_name=name, addresses=["127.0.0.1", name])
    folder = authority.folder / f"{name}-tls"
    folder.mkdir()
    (folder / "tls.crt").write_bytes(pair.certificate.read_bytes())
    (folder / "tls.key").write_bytes(pair.key.read_bytes())
    (folder / "ca.crt").write_bytes(authority.files.certificate.read_bytes())
    return folder


def test_only_who_may_ask_agents_by_a_certificate_of_ours_is_answered(node: AgentNode) -> None:
    ours, strangers = Authority(node.folder / "pki"), Authority(node.folder / "other")
    address = f"127.0.0.1:{ports.guess()}"
    server = _folder(ours, "agent")
    node.flags = [f"--tls-dir={server}", f"--listen={address}"]
    node.start_agent()
    a = node.start_pod("a", "G0/0")
    node.await_state(a, State.ACTIVE)

    known = TlsFiles(_folder(ours, names.CLIENT)).grpc_channel_credentials()
    with Agent.in_cluster(address, known) as agent:
        assert [one.key for one in agent.state().workloads] == [a.key]
        assert agent.park(a.key).ok

    authority = (server / "ca.crt").read_bytes()
    foreign = _folder(strangers, names.CLIENT)
    stranger = grpc.ssl_channel_credentials(
        authority, (foreign / "tls.key").read_bytes(), (foreign / "tls.crt").read_bytes()
    )
    for credentials in (stranger, grpc.ssl_channel_credentials(authority)):
        with Agent.in_cluster(address, credentials) as agent, pytest.raises(AgentAway):
            agent.state()

    activators = TlsFiles(_folder(ours, names.ACTIVATOR_CLIENT)).grpc_channel_credentials()
    with Agent.in_cluster(address, activators) as agent:  # it wakes and tells, no more
        assert agent.activate(a.key).ok
        assert agent.report_demand("activator", {(a.key, ""): 1}) == ()
        with pytest.raises(AgentRefused, match="this certificate is not kyb-client's"):
            agent.park(a.key)

    for other in (names.SCHEDULER_CLIENT, "kyb-extender.kyb-system.svc"):
        credentials = TlsFiles(_folder(ours, other)).grpc_channel_credentials()
        with Agent.in_cluster(address, credentials) as agent:
            with pytest.raises(AgentRefused, match="this certificate is not kyb-client's"):
                agent.state()
            with pytest.raises(AgentRefused, match="this certificate is not kyb-client's"):
                agent.activate(a.key)
