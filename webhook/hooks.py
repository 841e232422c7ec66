"""
The preStop hook of the seat container: its own, asked of the agent, and ours after it.

Pure; `additions` is called by `defaulting`, `faults` by `validation`. A container without its GPU
can run no hook, and the kubelet would wait for it; one that is sealed when it is deleted needs the
time for it. Rule: the pod's own grace period travels in the hook, so that ours is added once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kybernate.api import annotations, probes
from kybernate.api.errors import Fault, Malformed
from kybernate.model.probing import Asked, Kind
from kybernate.model.workload import OnDelete, Wishes
from webhook import seats
from webhook.probes import TOO_LONG, command_faults, original, too_long
from webhook.wire import Addition

GRACE_S = 30  # Kubernetes' own
# What an agent reckons with that has sealed nothing yet: a busy disk. Too much time costs nothing,
# the container ends as soon as it is sealed; with too little nothing is sealed.
SEAL_BYTES_PER_S = 200_000_000
# Parking, and the process's own memory, some 3 GB.
SEAL_BESIDE_S = 15
# Where the pod does not say: the most a common card has.
UNKNOWN_VRAM = 80 * 2**30
_NO_POST_START = (
    "none: a container may wait for its GPU for hours before it could run one; begin with it in "
    "the container's own command"
)


def additions(pod: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Addition]:
    """The hook and the grace period, with the annotations as they will be."""
    try:
        wishes = annotations.read_wishes(given)
    except (Malformed, TypeError, AttributeError):
        return  # refused as it is
    for place, container in seats.holders(pod):
        asked = _asked(pod, container, wishes)
        if asked is not None and not too_long(asked):
            yield from _hook(place, container, probes.write_command(asked))
            yield from _grace(pod, asked, wishes)


def faults(pod: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with hooks once they are rewritten."""
    for place, container in seats.holders(pod):
        lifecycle = container.get("lifecycle")
        hooks = lifecycle if isinstance(lifecycle, dict) else {}
        path = f"spec.containers[{place[-1]}].lifecycle"
        if hooks.get("postStart"):
            yield Fault(f"{path}.postStart", hooks["postStart"], _NO_POST_START)
        yield from command_faults(hooks.get("preStop"), Kind.PRESTOP, f"{path}.preStop")
        asked = _asked(pod, container, Wishes())
        if asked is not None and too_long(asked):
            yield Fault(f"{path}.preStop", hooks["preStop"], TOO_LONG)
    metadata = pod.get("metadata") or {}
    for missing in additions(pod, metadata.get("annotations") or {}):
        yield Fault(
            ".".join(missing.path), "not as it is to be", "what the mutating webhook makes of it"
        )


def seal_seconds(vram: int | None) -> int:
    """How much time a pod is given to be sealed in."""
    return SEAL_BESIDE_S - (-(vram or UNKNOWN_VRAM) // SEAL_BYTES_PER_S)


def _asked(pod: Mapping[str, Any], container: Mapping[str, Any], wishes: Wishes) -> Asked | None:
    lifecycle = container.get("lifecycle")
    given = lifecycle.get("preStop") if isinstance(lifecycle, dict) else None
    was = original(given, Kind.PRESTOP, container.get("ports"))
    seal = wishes.on_delete is OnDelete.CHECKPOINT
    if was is None and (given or not seal):
        return None
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    own = grace if isinstance(grace, int) else GRACE_S
    asked = was if isinstance(was, Asked) else Asked(kind=Kind.PRESTOP, action=was, grace=own)
    return Asked(kind=Kind.PRESTOP, action=asked.action, grace=asked.grace, seal=seal)


def _hook(
    place: tuple[str, ...], container: Mapping[str, Any], command: list[str]
) -> Iterator[Addition]:
    hook = {"exec": {"command": command}}
    lifecycle = container.get("lifecycle")
    if not isinstance(lifecycle, dict):
        yield Addition((*place, "lifecycle"), {"preStop": hook})
    elif lifecycle.get("preStop") != hook:
        yield Addition((*place, "lifecycle", "preStop"), hook)


def _grace(pod: Mapping[str, Any], asked: Asked, wishes: Wishes) -> Iterator[Addition]:
    own = GRACE_S if asked.grace is None else asked.grace
    wanted = own + (seal_seconds(wishes.vram) if asked.seal else 0)
    present = pod["spec"].get("terminationGracePeriodSeconds")
    if wanted != (GRACE_S if present is None else present):
        yield Addition(("spec", "terminationGracePeriodSeconds"), wanted)
