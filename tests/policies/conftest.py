"""
The policies, asked the way processes ask them.

Real: OPA, the bundle as the controller builds it, the adapter. Faked: nothing here.
Observed: verdicts. Rule: one OPA with the shipped policies serves the session; whoever changes
policies starts one of its own.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from controller import bundles
from controller.bundles import Bundle
from kybernate.clients.opa import OpaPolicy
from kybernate.model.ids import GroupName, WorkloadKey
from kybernate.model.policy import (
    AdmissionQuestion,
    Calendar,
    CheckpointFacts,
    GroupFacts,
    NodeClass,
    ParkedFacts,
    PlacementQuestion,
    PreemptionQuestion,
    RetentionQuestion,
    SharingQuestion,
    TenantFacts,
    TieringQuestion,
    TimesliceQuestion,
)
from kybernate.model.tier import Tier
from kybernate.model.workload import Desired, State, WorkloadClass
from policies import shipped
from testbed import assets
from testbed.opa import Opa

Question = (
    AdmissionQuestion
    | PlacementQuestion
    | PreemptionQuestion
    | RetentionQuestion
    | SharingQuestion
    | TieringQuestion
    | TimesliceQuestion
)
GIB = 1024**3
MORNING = Calendar(weekday=1, hour=10, minute=30)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the binary are among those that need the testbed's."""
    for item in items:
        if "opa_program" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.controlplane)


@pytest.fixture(scope="session")
def opa_program() -> Path:
    """The binary, built once into the cache folder."""
    return assets.ensure(["opa"])["opa"]


@pytest.fixture(scope="session")
def bundle(opa_program: Path) -> Bundle:
    """The shipped policies."""
    return bundles.build(shipped.files(), opa_program)


@pytest.fixture(scope="session")
def opa_server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opa]:
    """An OPA with the shipped policies."""
    folder = tmp_path_factory.mktemp("opa")
    packed = folder / "kyb.tar.gz"
    packed.write_bytes(bundle.content)
    with Opa.start(folder / "work", bundle=packed) as server:
        yield server


@pytest.fixture
def opa_policy(opa_server: Opa) -> Iterator[OpaPolicy]:
    """The adapter, with nothing remembered."""
    # Generous, so that a busy machine does not turn a slow answer into a failed test.
    policy = OpaPolicy(opa_server.url, timeout_s=10.0)
    yield policy
    policy.close()


@pytest.fixture
def a_tenant() -> Callable[..., TenantFacts]:
    """A builder: `a_tenant("llama-a", priority=5)`."""
    return _a_tenant


@pytest.fixture
def a_preemption() -> Callable[..., PreemptionQuestion]:
    """A builder of the question between two ordinary tenants."""

    def build(incoming: TenantFacts, holder: TenantFacts, **facts: Any) -> PreemptionQuestion:
        given: dict[str, Any] = {"calendar": MORNING, "slice_seconds": 20.0, **facts}
        return PreemptionQuestion(incoming=incoming, holder=holder, group=_group(1), **given)

    return build


@pytest.fixture
def a_timeslice() -> Callable[..., TimesliceQuestion]:
    """A builder: holders, then those who wait."""

    def build(holders: list[TenantFacts], waiting: list[TenantFacts]) -> TimesliceQuestion:
        return TimesliceQuestion(
            group=_group(len(waiting)),
            holders=tuple(holders),
            waiting=tuple(waiting),
            calendar=MORNING,
        )

    return build


@pytest.fixture
def a_tiering() -> Callable[..., TieringQuestion]:
    """A builder: whether this holder may leave, or where a parked one's contents should be."""

    def build(
        holder: TenantFacts, ram_free: int = 400 * GIB, parked: ParkedFacts | None = None
    ) -> TieringQuestion:
        return TieringQuestion(
            workload=holder, waiting=0, ram_free=ram_free, calendar=MORNING, parked=parked
        )

    return build


@pytest.fixture
def a_placement() -> Callable[..., PlacementQuestion]:
    """A builder: one class of nodes that is healthy, called `ordinary`."""

    def build(name: str = "llama-a", **facts: Any) -> PlacementQuestion:
        node = NodeClass(id="ordinary", product="NVIDIA H100", labels={}, healthy=True)
        given: dict[str, Any] = {
            "workload_class": WorkloadClass.INFERENCE,
            "priority": 0,
            "vram": 40 * GIB,
            "resource": "kyb.ai/gpu-1x-seat",
            "classes": (node,),
            **facts,
        }
        return PlacementQuestion(key=WorkloadKey("apps", name), **given)

    return build


@pytest.fixture
def an_admission() -> Callable[..., AdmissionQuestion]:
    """A builder: a pod of 40 GiB with these annotations."""

    def build(annotations: dict[str, str] | None = None, **facts: Any) -> AdmissionQuestion:
        given: dict[str, Any] = {
            "namespace": "apps",
            "namespace_labels": {},
            "resource": "kyb.ai/gpu-1x-seat",
            "vram": 40 * GIB,
            **facts,
        }
        pod = {"metadata": {"name": "llama-a", "annotations": annotations or {}}}
        return AdmissionQuestion(pod=pod, **given)

    return build


@pytest.fixture
def read_question() -> Callable[[str, Path], Question]:
    """A golden input as the question that is asked with it."""

    def read(package: str, path: Path) -> Question:
        return _READERS[package](orjson.loads(path.read_bytes()))

    return read


def _a_tenant(name: str, **facts: Any) -> TenantFacts:
    given: dict[str, Any] = {
        "workload_class": WorkloadClass.INFERENCE,
        "priority": 0,
        "vram": 40 * GIB,
        "state": State.PARKED,
        "idle_seconds": 0.0,
        "gpus": (0,),
        **facts,
    }
    return TenantFacts(key=WorkloadKey("apps", name), **given)


def _group(waiting: int) -> GroupFacts:
    return GroupFacts(name=GroupName("G0"), gpus=(0,), vram=80 * GIB, seats=6, waiting=waiting)


def _tenant(document: dict[str, Any]) -> TenantFacts:
    facts = dict(document)
    return TenantFacts(
        key=WorkloadKey.parse(facts.pop("key")),
        workload_class=WorkloadClass(facts.pop("class")),
        state=State(facts.pop("state")),
        desired=Desired(facts.pop("desired")),
        gpus=tuple(facts.pop("gpus")),
        **facts,
    )


def _group_of(document: dict[str, Any]) -> GroupFacts:
    return GroupFacts(**{**document, "gpus": tuple(document["gpus"])})


def _preemption(document: dict[str, Any]) -> PreemptionQuestion:
    return PreemptionQuestion(
        incoming=_tenant(document["incoming"]),
        holder=_tenant(document["holder"]),
        group=_group_of(document["group"]),
        calendar=Calendar(**document["calendar"]),
        slice_seconds=document["slice_seconds"],
        switches_last_minute=document["switches_last_minute"],
    )


def _timeslice(document: dict[str, Any]) -> TimesliceQuestion:
    return TimesliceQuestion(
        group=_group_of(document["group"]),
        holders=tuple(_tenant(one) for one in document["holders"]),
        waiting=tuple(_tenant(one) for one in document["waiting"]),
        calendar=Calendar(**document["calendar"]),
    )


def _tiering(document: dict[str, Any]) -> TieringQuestion:
    return TieringQuestion(
        workload=_tenant(document["workload"]),
        waiting=document["waiting"],
        ram_free=document["ram_free"],
        calendar=Calendar(**document["calendar"]),
        parked=_parked(document["parked"]) if "parked" in document else None,
    )


def _parked(document: dict[str, Any]) -> ParkedFacts:
    return ParkedFacts(**{**document, "tier": Tier(document["tier"])})


def _placement(document: dict[str, Any]) -> PlacementQuestion:
    facts = dict(document)
    return PlacementQuestion(
        key=WorkloadKey(facts.pop("namespace"), "any"),
        workload_class=WorkloadClass(facts.pop("class")),
        classes=tuple(NodeClass(**one) for one in facts.pop("classes")),
        **facts,
    )


def _admission(document: dict[str, Any]) -> AdmissionQuestion:
    return AdmissionQuestion(**document)


def _retention(document: dict[str, Any]) -> RetentionQuestion:
    given = [CheckpointFacts(**one) for one in document["checkpoints"]]
    return RetentionQuestion(**{**document, "checkpoints": tuple(given)})


def _sharing(document: dict[str, Any]) -> SharingQuestion:
    return SharingQuestion(by=document["namespace"], **document["image"])


_READERS: dict[str, Callable[[dict[str, Any]], Question]] = {
    "admission": _admission,
    "placement": _placement,
    "preemption": _preemption,
    "retention": _retention,
    "sharing": _sharing,
    "tiering": _tiering,
    "timeslice": _timeslice,
}
