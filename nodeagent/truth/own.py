"""
Which processes on a card are the agent's own workers: neither a workload's nor a stranger's.

Called by: `cards`. Workers outlive their agent, so a new one cannot know them as its children.
Rule: by program and by place. The words of a command line are anybody's; a cgroup is not.
"""

import os
from pathlib import Path

from nodeagent import gpuworker

_PROC = Path("/proc")


def is_own(pid: int, proc: Path = _PROC) -> bool:
    """Whether this is the agent, or a worker that was started where the agent runs."""
    if pid == os.getpid():
        return True
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
        there = (proc / str(pid) / "cgroup").read_bytes()
        return gpuworker.__name__.encode() in words and there == (proc / "self/cgroup").read_bytes()
    except OSError:
        return False
