"""
Whether somebody asks for a workload, and whether it works: what all signals together say.

Made by the agent's signals (`nodeagent/demand`), joined by `decisions/asking.py`; shown in
`GpuWorkload.status.demand` and told by the agent. (What placement asks of a node is another thing:
`decisions/demand.py`.)
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One signal's word, or all of them joined. Absent numbers mean that nobody can tell.

    `wanted`: somebody waits for it. `busy`: work or a request is under way. `idle_for`: seconds
    since it was last seen busy. `why` is in words: "a connection came to port 8000". In `doubt`:
    who should know cannot be asked, so that it must not be taken for idle by what others say.
    """

    wanted: bool = False
    busy: bool = False
    in_flight: int | None = None
    idle_for: float | None = None
    why: str = ""
    doubt: bool = False


SILENT = Demand()
"""Nobody asks, and nobody can tell whether it works."""

DOUBT = Demand(doubt=True)
"""Whoever should tell cannot be asked now."""
