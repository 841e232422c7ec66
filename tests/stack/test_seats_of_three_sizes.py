"""
Seats on one, two and four GPUs over the same four GPUs: placed by the real scheduler, given by the
real Allocate, and taken in turns. Witness beside the agent: the simulated cards and /proc.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kybernate.model.workload import State

pytestmark = pytest.mark.controlplane

# name -> (seat, VRAM, steps of a tenth of a second)
TRAINERS = {
    "all-1": ("4x", "64Gi", 15),
    "all-2": ("4x", "64Gi", 15),
    "pair-1": ("2x", "32Gi", 15),
    "pair-2": ("2x", "32Gi", 15),
    "pair-3": ("2x", "32Gi", 15),
    "solo-1": ("1x", "16Gi", 15),
    "solo-2": ("1x", "16Gi", 15),
    "solo-3": ("1x", "16Gi", 15),
}
GPUS = {"even": (0, 2), "odd": (1, 3), "G0123": (0, 1, 2, 3), **{f"G{n}": (n,) for n in range(4)}}


def test_they_take_turns_and_a_gpu_never_has_two(
    cluster: Any, witness: Callable[[str], Any]
) -> None:
    with witness("four") as seen:
        for name, (seat, vram, steps) in TRAINERS.items():
            cluster.trainer(name, steps, "four", vram, seat=seat)
        cluster.until(lambda: all(map(cluster.workload, TRAINERS)), "all have seats")
        seats = {name: cluster.workload(name) for name in TRAINERS}
        _seats_are_what_was_allocated(cluster, seats)
        # On a busy machine all of them together take minutes; what counts is that turns go on.
        for name in TRAINERS:
            cluster.until(
                lambda name=name: cluster.phase(name) == "Succeeded",
                f"{name} is done",
                moving=lambda: sum(seen.turns.values()),
            )
    assert not seen.faults
    assert seen.looks > 100
    assert set(seen.turns) == set(TRAINERS), "everybody had a turn"
    assert sum(seen.turns.values()) > len(TRAINERS), "somebody was parked and came back"
    for name, (_, _, steps) in TRAINERS.items():
        assert f"trained {steps} steps, memory intact" in cluster.log(name)


def _seats_are_what_was_allocated(cluster: Any, seats: dict[str, Any]) -> None:
    """The agent's word, the kubelet's file, and the annotation on the pod say the same."""
    assert len({one.seat for one in seats.values()}) == len(seats)
    given = (cluster.stack.nodes["four"].folder.plugins / "kubelet_internal_checkpoint").read_text()
    for name, one in seats.items():
        assert one.gpus == GPUS[one.seat.split("/")[0]]
        assert f'"{one.seat}"' in given
        cluster.until(
            lambda name=name, one=one: (
                cluster.pod(name)["metadata"]["annotations"].get("kyb.ai/seat") == one.seat
            ),
            f"the annotation of {name}",
        )


def test_a_container_is_told_the_seat_it_was_given(cluster: Any) -> None:
    cluster.model("told", "four", "8Gi", seat="2x")
    cluster.loaded("told")
    seat = cluster.workload("told").seat
    cluster.until(lambda: cluster.phase("told") == "Running", "it runs")
    cluster.predict("told")
    text = Path(f"/proc/{cluster.pid('told')}/environ").read_text()
    environment = dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
    group = seat.split("/")[0]
    assert environment["KYB_GPU_SEAT"] == f"seat-{seat.split('/')[1]}"
    assert environment["KYB_GPU_GROUP"] == group
    assert environment["KYB_GPU_INDICES"] == ",".join(map(str, GPUS[group]))
    by_uuid = {gpu.uuid: gpu.index for gpu in cluster.gpus["four"].showing().gpus}
    cuda = environment["CUDA_VISIBLE_DEVICES"].split(",")
    assert tuple(by_uuid[uuid] for uuid in cuda) == GPUS[group]


@pytest.mark.parametrize("group", ["even", "odd"])
@pytest.mark.parametrize("wish", ["prefer-group", "kyb.ai/prefer-group", "kyb.ai/require-group"])
def test_a_group_that_is_wished_for_is_given(cluster: Any, wish: str, group: str) -> None:
    cluster.model("wisher", "four", seat="2x", annotations={wish: group})
    cluster.until(lambda: cluster.workload("wisher"), "a seat")
    assert cluster.workload("wisher").seat.startswith(f"{group}/")


def test_two_pods_that_require_different_groups_at_once_get_them(cluster: Any) -> None:
    """Allocate does not say for which pod it is, and pods of one instant are admitted in a row."""
    wanted = {f"wants-{group}-{n}": group for n in range(2) for group in ("even", "odd")}
    for name, group in wanted.items():
        cluster.model(name, "four", seat="2x", annotations={"kyb.ai/require-group": group})
    cluster.until(lambda: all(map(cluster.workload, wanted)), "all have seats")
    given = {name: cluster.workload(name).seat.split("/")[0] for name in wanted}
    assert given == wanted


def test_a_group_that_is_required_and_full_keeps_the_pod_waiting(cluster: Any) -> None:
    for n in range(3):
        cluster.model(f"first-{n}", "four", seat="2x", annotations={"kyb.ai/require-group": "odd"})
    cluster.until(lambda: all(cluster.node_of(f"first-{n}") for n in range(3)), "all have nodes")
    cluster.model("fourth", "four", seat="2x", annotations={"kyb.ai/require-group": "odd"})
    cluster.until(lambda: cluster.scheduling("fourth"), "a reason")
    assert "required group has no free seat" in cluster.scheduling("fourth")
    cluster.delete("first-0")
    cluster.until(lambda: cluster.node_of("fourth") == "four", "its seat")
    cluster.until(cluster.is_("fourth", State.ACTIVE, State.PARKED), "its turn")
    assert cluster.workload("fourth").seat.startswith("odd/")
