"""The object store's room and each namespace's quota of it, before an agent demotes into it.

Called by: `tiers` and `cooling`, as the carrier they ask. What is there the agents wrote into
`GpuCheckpoint.status.copies`; what may be there policy's data say (`quotas.json`). Rules: what is
on its way counts; where it is not known how much may be there, nothing is put (nothing is lost:
copies stay where they are, and it is asked again).
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Protocol

from controller.carriers import Carrier
from controller.tier_plan import Copies
from kybernate.clients.clock import Clock
from kybernate.clients.copies import Moved, Told
from kybernate.clients.reflector import Key
from kybernate.decisions import storing
from kybernate.model.checkpoint import Checkpoint
from kybernate.model.ids import NodeName
from kybernate.model.storelimits import NO_LIMITS, StoreLimits
from kybernate.model.verdict import Reason, Refusal
from kybernate.runtime.metrics import Metrics

SEEN_WITHIN = 60.0  # seconds: an agent's word about a copy in the store has come back to us by then

Checkpoints = Callable[[], Mapping[Key, Checkpoint] | None]
"""All there are; None while nobody knows yet."""


class StoreFull(Exception):
    """It may not be put there now. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Asks(Protocol):
    """The part of the policy port that is needed."""

    def store_limits(self) -> StoreLimits | Refusal:
        """How much the store may keep."""


class Unlimited:
    """Where no OPA is given: nobody can say that there is a limit."""

    def store_limits(self) -> StoreLimits | Refusal:
        """None."""
        return NO_LIMITS


class StoreRoom:
    """A Carrier that demotes within the limits, else raises StoreFull. Thread safe."""

    def __init__(
        self, carrier: Carrier, policy: Asks, checkpoints: Checkpoints, clock: Clock
    ) -> None:
        self._carrier, self._policy = carrier, policy
        self._checkpoints, self._clock = checkpoints, clock
        self._lock = threading.Lock()
        self._coming: dict[Key, tuple[Checkpoint, float]] = {}  # and until when it counts

    def measure(self, metrics: Metrics) -> None:
        """What is kept there."""
        metrics.observed(
            "controller_store_kept_bytes",
            "Of checkpoints with a copy in object storage, each counted whole",
            self._kept,
        )

    def _kept(self) -> float:
        known = self._checkpoints() or {}
        return float(storing.kept(one for one in known.values() if one.in_object_storage).total())

    def bring(self, node: NodeName, one: Checkpoint, sources: Copies, told: Told) -> Moved:
        """As the port says."""
        return self._carrier.bring(node, one, sources, told)

    def demote(self, node: NodeName, one: Checkpoint, told: Told) -> Moved:
        """As the port says. Raises StoreFull."""
        with self._counted(one):
            return self._carrier.demote(node, one, told)

    def withdraw(self, node: NodeName, one: Checkpoint) -> Moved:
        """As the port says."""
        return self._carrier.withdraw(node, one)

    def remove(self, node: NodeName, one: Checkpoint) -> Moved:
        """As the port says."""
        return self._carrier.remove(node, one)

    @contextmanager
    def _counted(self, one: Checkpoint) -> Iterator[None]:
        key = (one.namespace, one.name)
        limits = self._policy.store_limits()
        with self._lock:
            refusal = self._refused(one, limits)
            if refusal is not None:
                raise StoreFull(refusal)
            self._coming[key] = own = one, inf
        try:
            yield
        except BaseException:
            with self._lock:
                if self._coming.get(key) is own:  # a newer try's stays
                    del self._coming[key]
            raise
        with self._lock:
            self._coming[key] = one, self._clock.monotonic() + SEEN_WITHIN

    def _refused(self, one: Checkpoint, limits: StoreLimits | Refusal) -> Refusal | None:
        if isinstance(limits, Refusal):
            detail = f"its limits are not known: {limits.detail}"
            return Refusal(reason=Reason.NO_STORE_ROOM, detail=detail)
        known = self._checkpoints()
        if known is None:
            return Refusal(reason=Reason.NO_STORE_ROOM, detail="what is in it is not known yet")
        now = self._clock.monotonic()
        self._coming = {key: on for key, on in self._coming.items() if on[1] > now}
        there = {key: on[0] for key, on in self._coming.items()}
        there |= {key: other for key, other in known.items() if other.in_object_storage}
        there.pop((one.namespace, one.name), None)
        return storing.refused(one, there.values(), limits)
