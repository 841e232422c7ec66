"""What a seat pod's environment is given for the guest library, and what keeps it from parking."""

from collections.abc import Callable
from typing import Any

import pytest

from webhook import defaulting, validation
from webhook.defaulting import Terms
from webhook.preload import CUSTOM_REDUCE

SEAT, PAIR = "kyb.ai/gpu-1x-seat", "kyb.ai/gpu-2x-seat"
SCHEDULERS = frozenset({"default-scheduler"})
GRAPHS = {"name": "NCCL_GRAPH_REGISTER", "value": "0"}
Make = Callable[..., Any]


@pytest.fixture
def env_after(a_pod: Make, a_container: Make, patched: Make) -> Callable[..., list[Any]]:
    """The seat container's environment as the webhook lets it in; asked twice, it is the same."""

    def complete(env: object = None, *, seat: str = SEAT, **wishes: str) -> list[Any]:
        container = a_container(limits={seat: "1"}) | ({} if env is None else {"env": env})
        pod = a_pod(container, annotations={f"kyb.ai/{k}": v for k, v in wishes.items()})
        once = patched(pod, defaulting.complete(pod, Terms()))
        assert defaulting.complete(once, Terms()) == ()
        assert validation.faults(once, SCHEDULERS) == ()
        found = once["spec"]["containers"][0]["env"]
        assert isinstance(found, list)
        return found

    return complete


def test_registered_graphs_are_switched_off_and_a_users_own_environment_stays(
    env_after: Callable[..., list[Any]],
) -> None:
    own = {"name": "LD_PRELOAD", "value": "/usr/lib/libjemalloc.so.2"}
    assert env_after() == [GRAPHS]
    assert env_after([own]) == [own, GRAPHS]
    assert env_after([GRAPHS, own]) == [GRAPHS, own]


def test_seats_of_several_cards_do_without_multicast(env_after: Callable[..., list[Any]]) -> None:
    assert env_after(seat=PAIR) == [GRAPHS, {"name": "NCCL_NVLS_ENABLE", "value": "0"}]


@pytest.mark.parametrize(
    ("seat", "args", "park", "warned"),
    [
        pytest.param(PAIR, ["--tensor-parallel-size=2"], "auto", True, id="as-usual"),
        pytest.param(PAIR, ["--disable-custom-all-reduce"], "auto", False, id="without-its-own"),
        pytest.param(SEAT, [], "auto", False, id="one-card"),
        pytest.param(PAIR, [], "never", False, id="never-parked"),
    ],
)
def test_a_vllm_with_reductions_of_its_own_is_warned(
    a_pod: Make, a_container: Make, seat: str, args: list[str], park: str, warned: bool
) -> None:
    container = a_container(limits={seat: "1"}) | {"command": ["vllm", "serve"], "args": args}
    pod = a_pod(container, annotations={"kyb.ai/park": park, "kyb.ai/vram": "40Gi"})
    said = defaulting.warnings(pod, Terms())
    assert [CUSTOM_REDUCE] * warned == list(said)


@pytest.mark.parametrize("park", ["never", "driver", "vllm-sleep"])
def test_a_pod_that_names_another_mechanism_has_a_library_that_does_nothing(
    env_after: Callable[..., list[Any]], park: str
) -> None:
    assert env_after(park=park) == [{"name": "KYB_GUEST_SOCKET", "value": ""}]


def test_policys_default_of_the_mechanism_counts_as_the_pods_own(a_pod: Make) -> None:
    added = defaulting.complete(a_pod(), Terms(defaults={"kyb.ai/park": "never"}))
    assert [{"name": "KYB_GUEST_SOCKET", "value": ""}] in [one.value for one in added]


RULED_OUT = {
    "env": [
        {"name": "NCCL_GRAPH_REGISTER", "value": "1"},
        {"name": "NCCL_NVLS_ENABLE", "value": "2"},
        {"name": "CUDA_MPS_PIPE_DIRECTORY", "value": "/mps"},
        {"name": "NCCL_IB_HCA", "value": "mlx5_0"},
    ],
    "limits": {"rdma/hca_shared_devices_a": "1", "vpc.amazonaws.com/efa": "2", SEAT: "1"},
}


def _ruled_out(a_pod: Make, a_container: Make, **wishes: str) -> dict[str, str]:
    container = a_container(limits=RULED_OUT["limits"]) | {"env": RULED_OUT["env"]}
    nic = {"name": "nic", "hostPath": {"path": "/dev/infiniband/uverbs0"}}
    pod = a_pod(container, annotations=wishes, runtimeClassName="kybernate", volumes=[nic])
    return {one.path: one.expected for one in validation.faults(pod, SCHEDULERS)}


def test_all_that_rules_parking_out_is_refused_by_name_at_once(
    a_pod: Make, a_container: Make
) -> None:
    found = _ruled_out(a_pod, a_container)
    place = "spec.containers[0]"
    assert list(found) == [
        f"{place}.env[0].value",
        f"{place}.env[1].value",
        f"{place}.env[2]",
        f"{place}.resources[rdma/hca_shared_devices_a]",
        f"{place}.resources[vpc.amazonaws.com/efa]",
        "spec.volumes[0].hostPath.path",
    ]
    assert all("kyb.ai/park: never" in expected for expected in found.values())


@pytest.mark.parametrize(("park", "faults"), [("never", 0), ("vllm-sleep", 0), ("driver", 6)])
def test_a_pod_whose_memory_nobody_moves_may_have_it(
    a_pod: Make, a_container: Make, park: str, faults: int
) -> None:
    assert len(_ruled_out(a_pod, a_container, **{"kyb.ai/park": park})) == faults


@pytest.mark.parametrize(
    "name", ["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb"]
)
@pytest.mark.parametrize("park", ["auto", "never"])
def test_another_gpu_or_a_slice_of_one_is_refused_beside_a_seat(
    a_pod: Make, a_container: Make, name: str, park: str
) -> None:
    wishes = {"kyb.ai/park": park}
    container = a_container(limits={SEAT: "1", name: "1"})
    pod = a_pod(container, annotations=wishes, runtimeClassName="kybernate")
    (fault,) = validation.faults(pod, SCHEDULERS)
    assert (fault.path, fault.value) == (f"spec.containers[0].resources[{name}]", name)


def test_nobody_names_the_agents_socket_for_the_library(a_pod: Make, a_container: Make) -> None:
    container = a_container(limits={SEAT: "1"})
    container["env"] = [{"name": "KYB_GUEST_SOCKET", "value": "/mine"}]
    (fault,) = validation.faults(a_pod(container, runtimeClassName="kybernate"), SCHEDULERS)
    assert fault.path == "spec.containers[0].env[0]"


@pytest.mark.parametrize(
    "name", ["example.com/library", "kyb.ai/gpu-1x-seat", "hugepages-2Mi", "example.com/vehicle"]
)
def test_resources_that_only_look_like_nics_are_let_in(
    a_pod: Make, a_container: Make, name: str
) -> None:
    pod = a_pod(a_container(limits={SEAT: "1", name: "1"}), runtimeClassName="kybernate")
    assert validation.faults(pod, SCHEDULERS) == ()
