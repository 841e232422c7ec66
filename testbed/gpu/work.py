"""
Work that a process submits: fill, count, check, or be busy.

Called by: `service`, within `Device.working`.
"""

from testbed.gpu import content
from testbed.gpu.context import Segment
from testbed.gpu.errors import Unfit, WrongState
from testbed.gpu.moving import Caller

_MICROSECONDS = 1e6


def run(segment: Segment, kind: str | None, value: int, caller: Caller) -> tuple[int, str]:
    """Do one piece of work; the counter after it, and the checksum where that was asked for."""
    held = segment.content
    if held is None:
        raise WrongState(f"{segment.name} is not in VRAM")
    with segment.card.compute:
        return _run(held, kind, value, caller)


def _run(held: bytearray, kind: str | None, value: int, caller: Caller) -> tuple[int, str]:
    match kind:
        case "fill":
            content.fill(held, value)
        case "increment":
            return content.increment(held, value), ""
        case "checksum":
            return content.counter(held), content.checksum(held)
        case "busy_microseconds":
            caller.wait(value / _MICROSECONDS)
        case _:
            raise Unfit("no work named")
    return content.counter(held), ""
