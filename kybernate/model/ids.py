"""Identities. A type for each, so that a pod's uid never lands where a GPU's is meant."""

from dataclasses import dataclass
from typing import NewType

NodeName = NewType("NodeName", str)
PodUid = NewType("PodUid", str)
GpuUuid = NewType("GpuUuid", str)  # as NVML prints it: "GPU-xxxxxxxx-..."
GroupName = NewType("GroupName", str)  # "G01": a set of GPUs given out together
ResourceName = NewType("ResourceName", str)  # "kyb.ai/gpu-1x-seat"
SeatId = NewType("SeatId", str)  # "G01/2": the device id the kubelet hands out
Revision = NewType("Revision", str)  # hash of the policies and data a verdict came from
NO_REVISION = Revision("")  # decided without policy


@dataclass(frozen=True, slots=True, order=True)
class WorkloadKey:
    """A workload's name in the cluster: its pod's. The pod's uid tells one life from the next."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> "WorkloadKey":
        """Read `namespace/name`; a plain name is in `default`."""
        namespace, slash, name = text.partition("/")
        return cls(namespace, name) if slash else cls("default", text)
