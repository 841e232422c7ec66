"""
Process images: a container's processes, their memory, files and sockets, as files; and back.

`body_of` finds a container as runc knows it; `RuncImages` is `ProcessImages` on real ones:
`unfit` (found before anything is frozen), `dump`, `restoration` (what `kybernate-runc` is answered
to `creating`, so that it restores instead of making anew; docs/reference/runtime.md).
Called by: the stories that seal and wake a workload.
Rule: an image holds no GPU contents; the workload is parked before, and wakes parked.
Rule: a dump changes nothing in the workload, and a failed one leaves nothing but its folder.
"""

from nodeagent.images.body import Body, BodyGone, body_of
from nodeagent.images.port import (
    Dumped,
    DumpFailed,
    ProcessImages,
    Unfit,
    Unfitness,
    Unrestorable,
)
from nodeagent.images.runc import RuncImages

__all__ = [
    "Body",
    "BodyGone",
    "DumpFailed",
    "Dumped",
    "ProcessImages",
    "RuncImages",
    "Unfit",
    "Unfitness",
    "Unrestorable",
    "body_of",
]
