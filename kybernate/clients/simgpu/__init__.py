"""
The simulated GPU's client (testbed/gpu serves it; simgpu.proto says what each call promises).

`Driver` is the driver's side: inventory, lock, copy out, release, copy in, unlock. Used by the node
agent and the simulated inventory.
`Attachment` is a workload's side: attach, allocate, submit work. Used by the model servers.
Errors: `OutOfMemory`, `ContextGone`, `NotNow` (Refused), `DeviceAway` (Retry); none of gRPC's.
"""

from kybernate.clients.simgpu.driver import Driver, Moved, Process, Segment, Showing
from kybernate.clients.simgpu.errors import ContextGone, DeviceAway, NotNow, OutOfMemory
from kybernate.clients.simgpu.workload import Attachment

__all__ = [
    "Attachment",
    "ContextGone",
    "DeviceAway",
    "Driver",
    "Moved",
    "NotNow",
    "OutOfMemory",
    "Process",
    "Segment",
    "Showing",
]
