"""
Leases: one leader among several, and a heartbeat that says somebody lives.

Called by: the controller (`Elector`), the node agent (`LeaseHeartbeat`).
Rule: nobody compares the clocks of two machines. A candidate takes over only after it has itself
watched the same record for a whole lease, on its own monotonic clock; a leader stops by itself,
before that, when it cannot renew. Every write is a compare-and-swap by resourceVersion.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from kybernate.api import timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.errors import AlreadyExists, ApiError, Conflict, NotFound
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.resources import LEASES

_JOIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds, client-go's own numbers. `renew_within` must be below `lease`: the difference is
    what clocks may drift and a request may hang."""

    lease: float = 15.0
    renew_within: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew_within < self.lease:
            raise ValueError("terms must be retry < renew_within < lease")


class Elector:
    """Leads while it holds the Lease. `on_started` and `on_stopped` run in its thread: they start
    and stop work and return promptly. `leading` is the truth, also while a request hangs."""

    def __init__(  # noqa: PLR0913 - who, where, when, and what to do
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        clock: Clock,
        on_started: Callable[[], None],
        on_stopped: Callable[[], None],
        *,
        terms: Terms = Terms(),
    ) -> None:
        self._kube = kube.within(terms.retry)
        self._namespace, self._name = namespace, name
        self.identity = identity
        self._clock = clock
        self._on_started, self._on_stopped = on_started, on_stopped
        self._terms = terms
        self._renewed: float | None = None  # monotonic, before the request went out
        self._told = False  # on_started was called
        self._seen: Mapping[str, Any] = {}
        self._seen_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"elector-{name}", daemon=True)
        self._log = structlog.get_logger(lease=f"{namespace}/{name}", identity=identity)

    @property
    def leading(self) -> bool:
        """Whether we may act as leader at this moment."""
        if self._renewed is None:
            return False
        return self._clock.monotonic() - self._renewed < self._terms.renew_within

    def start(self) -> None:
        """Begin to stand for election; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop leading, then give the Lease away so that the next one need not wait."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def step(self) -> None:
        """One try to get or keep the Lease. The thread calls it every `retry` seconds."""
        asked = self._clock.monotonic()
        try:
            if self._try():
                self._renewed = asked
        except (Conflict, AlreadyExists):
            pass  # somebody was faster; what they wrote is seen at the next step
        except ApiError as problem:
            self._log.warning("lease not reached", detail=str(problem))
        finally:
            self._tell()  # whatever went wrong: time that ran out has to be told

    def release(self) -> None:
        """Stop leading and give the Lease away."""
        held = self.leading
        self._renewed = None
        self._tell()
        if not held:
            return
        try:
            lease = self._kube.get(LEASES, self._name, self._namespace)
            if lease.get("spec", {}).get("holderIdentity") == self.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                self._kube.replace(LEASES, lease)
        except ApiError as problem:
            self._log.info("lease not released, it runs out by itself", detail=str(problem))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.step()
            except Exception:  # a callback's bug must not end the election: it is said, and goes on
                self._log.exception("step failed")
            self._clock.wait(self._stopping, self._terms.retry)
        self.release()

    def _tell(self) -> None:
        leading = self.leading
        if leading == self._told:
            return
        self._told = leading
        if leading:
            self._log.info("leading")
            self._on_started()
        else:
            self._renewed = None
            self._log.warning("no longer leading")
            self._on_stopped()

    def _try(self) -> bool:
        try:
            lease = self._kube.get(LEASES, self._name, self._namespace)
        except NotFound:
            self._kube.create(LEASES, self._new(), self._namespace)
            return True
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") not in (self.identity, "", None) and self._holds(spec):
            return False
        lease["spec"] = self._taken(spec)
        self._kube.replace(LEASES, lease)
        return True

    def _holds(self, spec: Mapping[str, Any]) -> bool:
        """Whether the other's time is not over, counted from when we saw its last renewal."""
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._clock.monotonic()
        lease = float(spec.get("leaseDurationSeconds") or self._terms.lease)
        return self._clock.monotonic() - self._seen_at <= lease

    def _taken(self, spec: Mapping[str, Any]) -> Obj:
        ours = spec.get("holderIdentity") == self.identity
        now = timestamps.rfc3339_micro(self._clock.now())
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self._terms.lease),
            "acquireTime": spec.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": (spec.get("leaseTransitions") or 0) + (0 if ours else 1),
        }

    def _new(self) -> Obj:
        spec = self._taken({}) | {"leaseTransitions": 0}
        return {"metadata": {"namespace": self._namespace, "name": self._name}, "spec": spec}


class LeaseHeartbeat:
    """Says `identity` lives, by renewing a Lease of its own. Nobody competes for it."""

    def __init__(  # noqa: PLR0913 - as the Elector
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        clock: Clock,
        *,
        every: float = 10.0,  # the kubelet's own pace for its node Lease
        lease: float = 40.0,  # and its length: three beats may be lost
    ) -> None:
        self._kube = kube.within(every)
        self._namespace, self._name, self._identity = namespace, name, identity
        self._clock = clock
        self._every, self._lease = every, lease
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{name}", daemon=True)
        self._log = structlog.get_logger(lease=f"{namespace}/{name}")

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End. The Lease is left to run out."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def beat(self) -> bool:
        """Renew once, making the Lease where there is none; whether it worked."""
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._lease),
            "renewTime": timestamps.rfc3339_micro(self._clock.now()),
        }
        try:
            self._renew(spec)
        except ApiError as problem:
            self._log.warning("heartbeat not written", detail=str(problem))
            return False
        return True

    def _renew(self, spec: Obj) -> None:
        try:
            self._kube.patch(LEASES, self._name, {"spec": spec}, self._namespace)
        except NotFound:
            metadata = {"namespace": self._namespace, "name": self._name}
            self._kube.create(LEASES, {"metadata": metadata, "spec": spec}, self._namespace)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.beat()
            self._clock.wait(self._stopping, self._every)


def is_stale(lease: Obj, seen_unchanged_for: float) -> bool:
    """Whether its holder is gone: it has not changed for its length, by the watcher's own clock."""
    length = (lease.get("spec") or {}).get("leaseDurationSeconds") or 0
    return seen_unchanged_for > float(length)
