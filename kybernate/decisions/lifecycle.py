"""The life of a workload, as one table.

Rule 1: every transition is in this file; nobody else decides which state follows which.
Rule 2: this file does not know who is asking nor what time it is.
"""

from collections.abc import Mapping
from enum import StrEnum

from kybernate.model.workload import State


class Happening(StrEnum):
    """What can happen to a workload."""

    STARTED = "started"  # its container exists and is held before its first instruction
    GRANTED = "granted"  # it is given its group's VRAM
    RUNS = "runs"  # it holds its VRAM and its gate is open
    START_FAILED = "start failed"  # it never ran, so it waits again
    ACTIVATION_FAILED = "activation failed"  # its contents are whole, in the tier they were in
    PARK = "park"
    PARKED = "parked"
    PARK_FAILED = "park failed"  # undone; it still holds its VRAM
    KEPT = "kept"  # it was to be parked for one that cannot come; nothing was tried
    SEAL = "seal"
    SEALED = "sealed"
    SEAL_FAILED = "seal failed"
    WAKE = "wake"  # a new container is made from a checkpoint
    WOKEN = "woken"  # it begins life parked
    WAKE_FAILED = "wake failed"
    LOST = "lost"  # neither forward nor back: its contents may be incomplete
    GONE = "gone"  # its container ended


class IllegalTransition(Exception):
    """The happening has no place in this state."""

    def __init__(self, state: State, happening: Happening) -> None:
        super().__init__(f"{happening!s} cannot happen to a workload that is {state}")
        self.state = state
        self.happening = happening


S, H = State, Happening

TRANSITIONS: Mapping[State, Mapping[Happening, State]] = {
    S.ABSENT: {H.STARTED: S.WAITING, H.WAKE: S.WAKING},
    S.WAITING: {H.GRANTED: S.ACTIVATING, H.GONE: S.ABSENT},
    S.ACTIVATING: {
        H.RUNS: S.ACTIVE,
        H.START_FAILED: S.WAITING,
        H.ACTIVATION_FAILED: S.PARKED,
        H.LOST: S.QUARANTINED,
        H.GONE: S.ABSENT,
    },
    S.ACTIVE: {H.PARK: S.PARKING, H.GONE: S.ABSENT, H.LOST: S.QUARANTINED},
    S.PARKING: {
        H.PARKED: S.PARKED,
        H.PARK_FAILED: S.ACTIVE,
        H.KEPT: S.ACTIVE,
        H.LOST: S.QUARANTINED,
        H.GONE: S.ABSENT,
    },
    S.PARKED: {
        H.GRANTED: S.ACTIVATING,
        H.ACTIVATION_FAILED: S.PARKED,
        H.SEAL: S.SEALING,
        H.GONE: S.ABSENT,
        H.LOST: S.QUARANTINED,
    },
    S.SEALING: {H.SEALED: S.PARKED, H.SEAL_FAILED: S.PARKED, H.GONE: S.ABSENT},
    S.WAKING: {
        H.WOKEN: S.PARKED,
        H.WAKE_FAILED: S.WAITING,
        H.GONE: S.ABSENT,
        H.LOST: S.QUARANTINED,
    },
    S.QUARANTINED: {H.GONE: S.ABSENT},
}


def after(state: State, happening: Happening) -> State:
    """The state that follows. Raises IllegalTransition for a pair that is not in the table."""
    try:
        return TRANSITIONS[state][happening]
    except KeyError:
        raise IllegalTransition(state, happening) from None
