"""
How soon a parked program runs again after the agent's restart, for `benchmarks.parking`.

Needs a GPU. What is measured: from a new agent's first look at the disk to the gate open.
"""

import time
from typing import Any

from benchmarks.harness.gpuprograms import Node, program, release
from kybernate.model.ids import GpuUuid

_LIMIT_S = 60.0


def after_a_restart(node: Node, uuid: GpuUuid, gib: int) -> dict[str, Any]:
    """Seconds with the worker that was there, and with a new one, which has pinned nothing; and
    how many slabs the worker has pinned then."""
    with program(node, "driver.py", str(gib)) as one:
        one.wait(bool)
        found = {}
        for name in ("its worker", "a new worker"):
            seconds = _seconds(node, one.body, anew=name == "a new worker")
            one.goes_on()
            pinned = node.mechanism.pinned(uuid)
            found[name] = {"seconds": seconds, "pinned_slabs": pinned}
            print(f"{gib} GiB after a restart, {name}: {seconds:.2f} s, {pinned} slabs", flush=True)
        return found


def _seconds(node: Node, body: Any, *, anew: bool) -> float:
    parked = node.mechanism
    parked.lock(body, _LIMIT_S)
    parts = parked.parts(body)
    slot = node.pool.reserve(body.uid, sum(part.size for part in parts))
    slot.seal(tuple(parked.copy_out(body, part, slot, lambda _: None) for part in parts))
    release(parked, body, parts)
    if anew:
        parked.dismiss()
    began = time.monotonic()
    node.restart()
    slot = node.pool.slot(body.uid)
    for kept in slot.parts():
        node.mechanism.copy_in(body, kept, slot, lambda _: None)
    node.mechanism.unlock(body, _LIMIT_S)
    seconds = time.monotonic() - began
    node.pool.free(body.uid)
    return seconds
