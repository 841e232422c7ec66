"""
How soon a thread that computes lets another one go on.

Called by: processes whose answers others wait for (extender, activator) and whose steps are carried
from thread to thread (agent), once, as they start.
"""

import sys

# Python gives a busy thread 5 ms before another may run: as long as a whole answer may take. With
# watches flowing, a request would wait that long for its turn, several times.
_SWITCH_S = 0.0005


def over_soon() -> None:
    """From now on, in all of this process."""
    sys.setswitchinterval(_SWITCH_S)
