"""
Demand's parts, each by itself.

Real where a test says so: the kernel's sockets. Faked: time, the coordinator, namespaces.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kybernate.model.gpu import Seat
from kybernate.model.ids import GpuUuid, GroupName, PodUid, ResourceName, WorkloadKey
from kybernate.testing.builders import GIB, a_group
from nodeagent.disk.records import Mark, Record, Terms
from nodeagent.lives.life import Life


@pytest.fixture
def a_life() -> Callable[..., Life]:
    """A builder: `a_life("a", mark=Mark.PARKED)`."""

    def build(
        name: str, *, pid: int = 1, terms: dict[str, Any] | None = None, **fields: Any
    ) -> Life:
        group = a_group(0)
        whole: dict[str, Any] = {
            "key": WorkloadKey("default", name),
            "uid": PodUid(f"uid-{name}"),
            "seat": Seat(GroupName("G0"), 0),
            "container": "model",
            "container_id": f"id-{name}",
            "pid": pid,
            "pid_started": 1,
            "exec_fifo": "",
            "boot": "boot",
            "mark": Mark.ACTIVE,
            "terms": Terms(
                resource=ResourceName("kyb.ai/gpu-1x-seat"), vram=40 * GIB, **(terms or {})
            ),
        }
        record = Record(**{**whole, **fields})
        return Life(record=record, group=group, uuids={0: GpuUuid("GPU-0")})

    return build
