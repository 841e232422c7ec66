"""
Graceful stop: SIGTERM and SIGINT set an event that every loop of the process waits on.
"""

import signal
import threading
from types import FrameType


def stop_event() -> threading.Event:
    """Set at the first SIGTERM or SIGINT; the second one ends the process at once.

    To be called once, in the main thread.
    """
    event = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        event.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return event
