"""
Facts of a node -> findings. Pure; one function a check, in the order in which people mend things.

Called by: `command`.
Rule: a check says what was found and what is wanted also when all is well.
"""

from collections.abc import Callable

from kyb.doctor import hardware, software, storage
from kyb.doctor.facts import NodeFacts
from kyb.doctor.findings import Finding

Check = Callable[[NodeFacts], Finding]
CHECKS: tuple[Check, ...] = (
    hardware.driver,
    hardware.memory,
    hardware.bus,
    hardware.disk,
    hardware.pool,
    hardware.transparent_huge_pages,
    hardware.huge_pages,
    software.kernel,
    software.kernel_config,
    software.cgroups,
    software.criu,
    software.runc,
    software.containerd_version,
    software.handler,
    software.kubelet_version,
    software.agent_wait,
    software.wake_wait,
    software.static_pods,
    software.foreign_plugin,
    storage.store,
)


def examine(facts: NodeFacts) -> tuple[Finding, ...]:
    """Every check, all at once."""
    return tuple(check(facts) for check in CHECKS)
