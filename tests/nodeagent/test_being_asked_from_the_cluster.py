"""The agent's second server: mTLS, for the controller, kyb and the activator."""

import grpc
import pytest

from kybernate.api import names
from kybernate.clients.agents import Agent, AgentAway, AgentRefused
from kybernate.clients.reaching import SERVER
from kybernate.model.workload import State
from kybernate.runtime.tls import TlsFiles
from kybernate.stores.errors import Denied
from kybernate.stores.nvme import Nvme
from kybernate.stores.peer import Peer
from kybernate.testing.agentnode import AgentNode
from testbed import ports
from testbed.pki import Authority


def test_agents_lend_their_store_to_each_other(node: AgentNode) -> None:
    """Objects of their checkpoints, to be read; to nobody else but agents."""
    ours = Authority(node.folder / "pki")
    address = f"127.0.0.1:{ports.guess()}"
    folder = node.folder / "checkpoints"
    node.flags = [
        f"--tls-dir={ours.mounted(SERVER)}", f"--listen={address}", f"--checkpoint-dir={folder}",
    ]  # fmt: skip
    node.start_agent()
    Nvme(folder).put("domains/default/packs/ab/abcd", b"sealed")
    agents = TlsFiles(ours.mounted(names.AGENT_CLIENT))
    peer = Peer(address, agents.grpc_channel_credentials)
    assert [one.key for one in peer.list("domains")] == ["domains/default/packs/ab/abcd"]
    assert bytes(peer.get("domains/default/packs/ab/abcd", 2)) == b"aled"
    with pytest.raises(Denied, match="to be read"):
        peer.delete("domains/default/packs/ab/abcd")
    kyb = TlsFiles(ours.mounted(names.CLIENT))
    with pytest.raises(Denied, match="only agents"):
        list(Peer(address, kyb.grpc_channel_credentials).list())


def test_only_who_may_ask_agents_by_a_certificate_of_ours_is_answered(node: AgentNode) -> None:
    ours, strangers = Authority(node.folder / "pki"), Authority(node.folder / "other")
    address = f"127.0.0.1:{ports.guess()}"
    server = ours.mounted("agent")
    node.flags = [f"--tls-dir={server}", f"--listen={address}"]
    node.start_agent()
    a = node.start_pod("a", "G0/0")
    node.await_state(a, State.ACTIVE)

    known = TlsFiles(ours.mounted(names.CLIENT)).grpc_channel_credentials()
    with Agent.in_cluster(address, known) as agent:
        assert [one.key for one in agent.state().workloads] == [a.key]
        assert agent.park(a.key).ok

    authority = (server / "ca.crt").read_bytes()
    foreign = strangers.mounted(names.CLIENT)
    stranger = grpc.ssl_channel_credentials(
        authority, (foreign / "tls.key").read_bytes(), (foreign / "tls.crt").read_bytes()
    )
    for credentials in (stranger, grpc.ssl_channel_credentials(authority)):
        with Agent.in_cluster(address, credentials) as agent, pytest.raises(AgentAway):
            agent.state()

    activators = TlsFiles(ours.mounted(names.ACTIVATOR_CLIENT)).grpc_channel_credentials()
    with Agent.in_cluster(address, activators) as agent:  # it wakes and tells, no more
        assert agent.activate(a.key).ok
        assert agent.report_demand("activator", {(a.key, ""): 1}) == ()
        with pytest.raises(AgentRefused, match="this certificate is not kyb-client's"):
            agent.park(a.key)

    for other in (names.SCHEDULER_CLIENT, "kyb-extender.kyb-system.svc"):
        credentials = TlsFiles(ours.mounted(other)).grpc_channel_credentials()
        with Agent.in_cluster(address, credentials) as agent:
            with pytest.raises(AgentRefused, match="this certificate is not kyb-client's"):
                agent.state()
            with pytest.raises(AgentRefused, match="this certificate is not kyb-client's"):
                agent.activate(a.key)
