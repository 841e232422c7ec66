"""
Ending what a light node that was killed left running.

Called by: `__main__` (--end-pods), `kyb down`, tests' clean-up.
"""

from pathlib import Path

from testbed.lightnode.container import Container, StartFailed
from testbed.lightnode.podrecord import Records


def end_pods(work: Path) -> int:
    """Kill every container of this work folder; how many ran. The records stay."""
    records, ended = Records(work), 0
    for record in records.all():
        try:
            container = Container.find(records.attempt(record))
        except StartFailed:
            continue  # it never ran
        if container is not None:
            ended += container.exit_code() is None
            container.end()
    return ended
