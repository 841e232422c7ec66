"""What our codecs write, the real API server takes strictly and gives back to them unchanged."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kybernate.api import checkpoints, gpunodes, gpuworkloads
from kybernate.api.checkpoints import read_checkpoint
from kybernate.model.checkpoint import Checkpoint, Claim
from kybernate.model.gpu import Gpu, Group, Health, Profile, Seat
from kybernate.model.ids import GpuUuid, GroupName, NodeName, PodUid, ResourceName, WorkloadKey
from kybernate.model.node import NodeState, Tenant
from kybernate.model.tier import Bandwidth, Room, Tier
from kybernate.model.verdict import Decision, EventReason
from kybernate.model.workload import State, Wishes, Workload, WorkloadClass

pytestmark = pytest.mark.controlplane

KYB = "/apis/kyb.ai/v1alpha1"
STRICT = "fieldValidation=Strict"
SEAT = ResourceName("kyb.ai/gpu-2x-seat")
GIB = 2**30
NOW = 1_769_860_800.0


def _tenant(name: str, state: State, number: int, *, until: float = 0.0) -> Tenant:
    return Tenant(
        key=WorkloadKey("default", name),
        uid=PodUid(f"uid-{name}"),
        group=GroupName("G01"),
        seat=Seat(GroupName("G01"), number),
        state=state,
        vram=40 * GIB,
        workload_class=WorkloadClass.TRAINING,
        priority=-7,
        min_runtime_until=until,
        tier=None if state is State.WAITING else Tier.VRAM,
        waits=state is State.WAITING,
    )


def _node(name: str) -> NodeState:
    profile = Profile(name="gpu-2x-seat", resource=SEAT, group_size=2, seats_per_group=3)
    group = Group(name=GroupName("G01"), gpus=(0, 1), profile=profile, vram=160 * GIB)
    return NodeState(
        name=NodeName(name),
        groups={group.name: group},
        group_health={group.name: Health.UNHEALTHY},
        tenants=(_tenant("a", State.ACTIVE, 0, until=NOW), _tenant("b", State.WAITING, 1)),
        bandwidths={Tier.RAM: Bandwidth(bytes_per_second=46e9, spread=12.5)},
        rooms={Tier.RAM: Room(capacity=400 * GIB, used=40 * GIB)},
        product="NVIDIA H100 80GB HBM3",
    )


def _gpu(index: int) -> Gpu:
    return Gpu(index=index, uuid=GpuUuid(f"GPU-{index}"), product="H100", memory=80 * GIB, numa=0)


def test_a_gpunode_comes_back_as_its_agent_wrote_it(
    account: Callable[..., Any], new_node: Callable[[], str]
) -> None:
    name = new_node()
    agent, node = account("kyb-nodeagent", node=name), _node(name)
    seen = gpunodes.Observed(
        at=NOW,
        ready_since=NOW,
        gpus=[_gpu(0), _gpu(1)],
        used={0: 40 * GIB},
        driver="580.65.06",
        mechanisms=["simulated"],
        policy_revision="sha256:0123456789ab",
    )
    made = agent.create(f"{KYB}/gpunodes?{STRICT}", gpunodes.new_object(node.name))
    assert made.status == 201, made.message
    status = gpunodes.write_status(node, seen)
    written = agent.merge(f"{KYB}/gpunodes/{name}/status?{STRICT}", {"status": status})
    assert written.status == 200, written.message
    assert gpunodes.read_node(written.body) == node
    assert written.body["status"] == status
    summary = written.body["status"]["summary"]
    assert (summary["active"], summary["waiting"]) == ("default/a on G01", 1)
    assert (summary["seats"], summary["ram"]) == ("2/3", "40 GiB of 400 GiB")


def test_a_gpuworkload_comes_back_as_each_wrote_its_part(
    account: Callable[..., Any],
    namespace: str,
    new_node: Callable[[], str],
    new_name: Callable[[str], str],
) -> None:
    node, name = new_node(), new_name("pod")
    workload = Workload(
        key=WorkloadKey(namespace, name),
        uid=PodUid("uid-1"),
        resource=SEAT,
        seat_container="m",
        priority=-7,
        wishes=Wishes(vram=40 * GIB, workload_class=WorkloadClass.BATCH),
    )
    path = f"{KYB}/namespaces/{namespace}/gpuworkloads"
    new = gpuworkloads.new_object(workload)
    del new["metadata"]["ownerReferences"]  # there is no such pod: the garbage collector would act
    made = account("kyb-controller").create(f"{path}?{STRICT}", new)
    assert made.status == 201, made.message
    assert gpuworkloads.read_spec(made.body).vram == 40 * GIB
    status = gpuworkloads.Status(
        state=State.PARKED,
        since=NOW,
        node=node,
        group="G01",
        seat="G01/0",
        tier=Tier.RAM,
        mechanism="simulated",
        why="parked for default/b",
        seconds_in={State.ACTIVE: 61.25},
        last_switch=(gpuworkloads.Phase(name="copy out", seconds=0.88, size=40 * GIB),),
        last_switch_seconds=0.91,
    )
    body = {"status": gpuworkloads.write_status(status)}
    agent = account("kyb-nodeagent", node=node)
    written = agent.merge(f"{path}/{name}/status?{STRICT}", body)
    assert written.status == 200, written.message
    decision = Decision(time="2026-01-31T12:00:00Z", reason=EventReason.PLACED, message="4.1 s")
    body = {"status": {"decisions": gpuworkloads.write_decisions([decision])}}
    kept = account("kyb-extender").merge(f"{path}/{name}/status?{STRICT}", body)
    assert kept.status == 200, kept.message
    assert gpuworkloads.read_status(kept.body) == status
    assert gpuworkloads.read_decisions(kept.body) == (decision,)


def test_a_checkpoint_comes_back_as_its_agents_wrote_it(
    account: Callable[..., Any],
    namespace: str,
    new_node: Callable[[], str],
    new_name: Callable[[str], str],
) -> None:
    here, there = NodeName(new_node()), NodeName(new_node())
    sealed = Checkpoint(
        namespace=namespace,
        name=new_name("llama-0"),
        size=40 * GIB,
        ready=True,
        workload="statefulset.llama.0",
        sealed_at=NOW,
        labels={"app": "llama"},
        signature="ed25519:aa:bb",
    )
    claim = Claim(pod_uid=PodUid("u1"), node=there, pod="llama-0")
    path = f"{KYB}/namespaces/{namespace}/gpucheckpoints"
    sealer, waker = account("kyb-nodeagent", node=here), account("kyb-nodeagent", node=there)
    kind = {"apiVersion": "kyb.ai/v1alpha1", "kind": "GpuCheckpoint"}
    made = sealer.create(f"{path}?{STRICT}", {**kind, **checkpoints.new_object(sealed, here)})
    assert made.status == 201, made.message
    status = checkpoints.write_sealed(sealed, "sha256:aa", NOW)
    body = {"status": {**status, "copies": [{"node": here, "tier": "nvme"}]}}
    written = sealer.merge(f"{path}/{sealed.name}/status?{STRICT}", body)
    assert written.status == 200, written.message
    body = {"status": {"claim": checkpoints.write_claim(claim)}}
    claimed = waker.merge(f"{path}/{sealed.name}/status?{STRICT}", body)
    assert claimed.status == 200, claimed.message
    expected = replace(sealed, copies={here: Tier.NVME}, claim=claim)
    assert read_checkpoint(claimed.body) == expected


def test_a_checkpoint_is_read_as_it_stands_there(
    admin: Any, namespace: str, new_name: Callable[[str], str]
) -> None:
    name = new_name("checkpoint")
    path = f"{KYB}/namespaces/{namespace}/gpucheckpoints"
    body = {
        "apiVersion": "kyb.ai/v1alpha1",
        "kind": "GpuCheckpoint",
        "metadata": {"name": name},
        "spec": {"workload": "Deployment/chat"},
    }
    assert admin.create(f"{path}?{STRICT}", body).status == 201
    copies = [{"node": "n", "tier": "nvme"}, {"node": "n", "tier": "ram"}, {"tier": "object"}]
    status = {"sizeBytes": 7, "copies": copies}
    kept = read_checkpoint(admin.merge(f"{path}/{name}/status", {"status": status}).body)
    assert (kept.workload, kept.size, kept.gold, kept.ready) == ("Deployment/chat", 7, False, False)
    assert (kept.copies, kept.in_object_storage) == ({NodeName("n"): Tier.RAM}, True)
