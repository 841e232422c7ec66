"""Every part of a controller, made and started in order. Called by `__main__`.

Each replica watches, publishes policies and serves them; what writes to the cluster starts and
stops with leadership.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.bundle_app import bundle_app
from controller.carriers import AgentCarrier
from controller.checkpointing import Checkpointing
from controller.claims import Claims
from controller.cooling import Cooling
from controller.departures import Departures
from controller.duties import Duty
from controller.emptying import AgentCollector, Emptying
from controller.emptying import Terms as StoreTerms
from controller.gilding import Gilding
from controller.issuing import Issuing, Lifetimes
from controller.keeping import CONFIGMAP as KEPT
from controller.keeping import Keeping
from controller.openings import Openings
from controller.policies import CONFIGMAP, Announcer, Outcome, Policies, Waking
from controller.publication import Publication
from controller.readiness import Readiness
from controller.restoring import Restoring
from controller.retiring import Asks, NoPolicy, Retiring
from controller.sealers import AgentSealer
from controller.serving import BundleServer
from controller.settings import Settings
from controller.signing import Signing
from controller.signing import Terms as KeyTerms
from controller.snapshotting import Snapshotting
from controller.storing import Asks as Limits
from controller.storing import StoreRoom, Unlimited
from controller.tiers import Tiers
from controller.workloads import Workloads
from controller.zeroing import Zeroing
from kybernate.clients.events import EventRecorder, ObjectRef
from kybernate.clients.kube import Kube
from kybernate.clients.leases import Elector
from kybernate.clients.opa import OpaPolicy
from kybernate.clients.reflector import Key, Reflector, unready
from kybernate.model.checkpoint import Checkpoint
from kybernate.runtime import serving
from kybernate.runtime.clock import Clock
from kybernate.runtime.health import Health
from kybernate.runtime.metrics import Metrics

NAME = "kyb-controller"


class Process:
    """One controller. `start` returns at once; `stop` gives the Lease away."""

    def __init__(self, settings: Settings, kube: Kube, clock: Clock) -> None:
        """Raises OSError where an address is taken or a folder cannot be made."""
        self._settings, self._kube, self._clock = settings, kube, clock
        self.identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._events = EventRecorder(kube, "kyb.ai/controller", self.identity, clock)
        self._publication = Publication(opa=_program(settings.opa), folder=settings.bundle_dir)
        self.elector = Elector(
            kube, settings.namespace, NAME, self.identity, clock, self._lead, self._follow
        )
        self._announcer = Announcer(self._events, clock, lambda: self.elector.leading)
        self._workloads = Workloads(kube, clock)
        self._readiness = Readiness(kube, clock, settings.namespace)
        self._policies = Policies(kube, clock, settings.namespace, self._publication, self._told)
        self._waking = self._make_waking()
        self._openings = Openings(kube, clock, self._workloads.any_unplaced)
        self._claims = Claims(kube, clock)
        self._retiring = Retiring(kube, clock, self._policy())
        self._workloads.on_gone = self._claims.pod_gone
        self._checkpointing = Checkpointing(kube, clock, AgentSealer(kube))
        self._restoring = Restoring(kube, clock, self._workloads.living)
        self._snapshotting = Snapshotting(kube, clock, self._events)
        self._store_room = StoreRoom(AgentCarrier(kube), self._limits(), self._known, clock)
        self._tiers = Tiers(kube, clock, self._store_room, self._events)
        self._cooling = Cooling(kube, clock, self._store_room, self._events)
        self._gilding = Gilding(kube, clock)
        self._emptying = self._make_emptying()
        self._departures = Departures(kube, clock, settings.namespace)
        self._zeroing = Zeroing(kube, clock, self._events, settings.zero_after)
        self._keeping = Keeping(kube, clock, settings.namespace, self._publication)
        self._issuing = self._make_issuing() if settings.certificates else None
        self._signing = self._make_signing()
        app = bundle_app(self._publication)
        self.bundles = BundleServer(settings.listen, app, settings.tls_dir, clock)
        self._telemetry = serving.telemetry(
            settings.metrics_listen, self._health(), self._measure()
        )

    def start(self) -> None:
        """Watch, serve, and stand for election."""
        self._telemetry.start()
        self.bundles.start()
        self._policies.duty.start()
        for reflector in self._watches():
            reflector.start()
        self.elector.start()

    def stop(self) -> None:
        """End everything, leadership first, so that another replica goes on at once."""
        self.elector.stop()
        self._policies.duty.stop()
        for reflector in self._watches():
            reflector.stop()
        self.bundles.stop()
        self._events.stop()
        self._telemetry.stop()
        self._kube.close()

    def _duties(self) -> list[Duty[Any]]:
        """What only the leader does."""
        issuing = [self._issuing.duty] if self._issuing else []
        issuing.append(self._signing.duty)
        return [*issuing, self._waking.duty, *(part.duty for part in self._parts())]

    def _parts(self) -> tuple[Any, ...]:
        """What watches, and acts where it leads."""
        requests = (
            self._checkpointing, self._restoring, self._claims, self._retiring, self._tiers,
            self._cooling, self._snapshotting, self._emptying, self._gilding,
        )  # fmt: skip
        books = (self._workloads, self._readiness, self._departures)
        return (*books, *requests, self._openings, self._keeping, self._zeroing)

    def _watches(self) -> list[Reflector[Any]]:
        issuing = self._issuing.watches if self._issuing else ()
        parts = (self._policies, *self._parts())
        return [*issuing, *(watch for part in parts for watch in part.watches)]

    def _lead(self) -> None:
        self._announcer.start()
        for duty in self._duties():
            duty.start()

    def _follow(self) -> None:
        for duty in self._duties():
            duty.stop()

    def _told(self, configmap: ObjectRef, outcome: Outcome) -> None:
        self._announcer(configmap, outcome)
        self._waking.duty.touch(CONFIGMAP)
        self._keeping.duty.touch(KEPT)

    def _make_waking(self) -> Waking:
        url = self._settings.opa_url
        return Waking(
            self._kube,
            self._clock,
            self._revision,
            OpaPolicy(url) if url else None,
            self._readiness.names,
            self._settings.policy_settle,
        )

    def _policy(self) -> Asks:
        url = self._settings.opa_url
        return OpaPolicy(url) if url else NoPolicy()

    def _known(self) -> Mapping[Key, Checkpoint] | None:
        """Of whom the store keeps something, or might."""
        return self._cooling.checkpoints()

    def _limits(self) -> Limits:
        url = self._settings.opa_url
        return OpaPolicy(url) if url else Unlimited()

    def _make_issuing(self) -> Issuing:
        settings = self._settings
        lifetimes = Lifetimes(
            authority=settings.authority_lifetime, leaf=settings.certificate_lifetime
        )
        terms = settings.terms()
        return Issuing(self._kube, self._clock, settings.namespace, terms, lifetimes)

    def _make_emptying(self) -> Emptying:
        settings = self._settings
        terms = StoreTerms(every=settings.store_every, grace=settings.store_grace)
        collector = AgentCollector(self._kube)
        return Emptying(self._clock, terms, collector, self._readiness.names, self._events)

    def _make_signing(self) -> Signing:
        settings = self._settings
        terms = KeyTerms(
            lifetime=settings.checkpoint_key_lifetime, overlap=settings.certificate_overlap
        )
        return Signing(self._kube, self._clock, settings.namespace, terms)

    def _revision(self) -> str | None:
        bundle = self._publication.current
        return None if bundle is None else bundle.revision

    def _health(self) -> Health:
        health = Health()
        health.ready("watches", lambda: unready(self._watches()))
        health.ready("bundles", lambda: None if self.bundles.serving else "no certificate yet")
        return health

    def _measure(self) -> Metrics:
        metrics = Metrics()
        leads: Callable[[], float] = lambda: float(self.elector.leading)  # noqa: E731
        self._emptying.measure(metrics)
        self._store_room.measure(metrics)
        metrics.observed("controller_leading", "1 while this replica leads", leads)
        metrics.observed(
            "controller_watch_broken_seconds",
            "How long the watch that is broken longest has been so",
            lambda: max(watch.broken_seconds for watch in self._watches()),
        )
        looks = metrics.counter("controller_looks", "Looks at keys", ("duty", "outcome"))
        for duty in (*self._duties(), self._policies.duty):
            duty.observe = lambda name, outcome: looks.labels(name, outcome).inc()
            metrics.observed(
                f"controller_{duty.name}_pending",
                "Keys that wait for a look, now or later",
                lambda duty=duty: float(duty.pending),  # type: ignore[misc]
            )
        return metrics


def _program(opa: Path) -> Path:
    """Where the program is; one that is not found fails at its first use, and is told then."""
    found = shutil.which(os.fspath(opa))
    return Path(found) if found else opa
