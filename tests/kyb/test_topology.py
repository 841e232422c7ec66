"""`kyb topology`: the groups a profile file makes, and every fault of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

PROFILES = """
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 4}
  - {name: gpu-2x-seat, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 3}
gpus:
  - {index: 0, uuid: GPU-0, product: H100, memory: 80Gi}
  - {index: 1, uuid: GPU-1, product: H100, memory: 80Gi}
"""


def test_the_groups_of_a_good_file_are_shown(kyb: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(PROFILES)
    said = kyb("topology", "--profiles", str(file), "--inventory", "listed")
    assert said.exit_code == 0, said.output
    assert "G01" in said.output


def test_every_fault_of_a_file_is_named_with_status_2(
    kyb: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(PROFILES.replace("groupSize: 2", "groupSize: two").replace("80Gi}", "80}"))
    said = kyb("topology", "--profiles", str(file), "--inventory", "listed")
    assert said.exit_code == 2
    assert "groupSize" in said.output
