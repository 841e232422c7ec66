"""
The parts of the extender, put together. Called by: `serving.py`, in the worker that serves.
"""

import gc
import os
import threading

from flask import Flask

from extender import app, dump
from extender.dump import Dump
from extender.metrics import ExtenderMetrics
from extender.placing import Options, Placing
from extender.recorder import Recorder
from extender.service import Service
from extender.settings import Settings
from extender.verdicts import NoPolicy, PlacementPolicy, Verdicts
from extender.view import View
from extender.watching import Watching
from kybernate.clients.events import EventRecorder
from kybernate.clients.kube import Kube
from kybernate.clients.opa import OpaPolicy
from kybernate.runtime import serving
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.health import Health

CONTROLLER = "kyb.ai/extender"
_LOOK_S = 0.2  # between looks whether the view is complete


class Process:
    """One running extender: `flask` answers; `start` begins watching and `stop` ends it."""

    def __init__(self, settings: Settings, policy: PlacementPolicy | None = None) -> None:
        clock = SystemClock()
        self._clock = clock
        self._kube = Kube.connect(settings.kubeconfig)
        self._stop = threading.Event()
        self._view = View()
        self._verdicts = Verdicts(policy or _policy(settings), clock)
        options = Options(candidates=settings.candidates, cold_start=settings.cold_start)
        self._placing = Placing(self._view, self._verdicts, clock, options)
        events = EventRecorder(self._kube, CONTROLLER, os.uname().nodename, clock)
        self._recorder = Recorder(self._kube, events, clock)
        self._watching = Watching(self._kube, self._view, self._recorder)
        self.metrics = ExtenderMetrics()
        self._service = Service(
            self._placing, self._recorder, self.metrics, lambda: self._watching.synced
        )
        self._observe()
        self.health = Health()
        self.health.ready("view", lambda: self._watching.unready)
        self.flask: Flask = app.create(
            self._service,
            self.metrics,
            self.health,
            app.Seen(self.dump, by_everybody=settings.require_client_certificate),
        )
        self._telemetry = serving.telemetry(settings.metrics_listen, self.health, self.metrics)

    def start(self) -> None:
        """Begin; returns at once. Ready when `health` says so."""
        self._watching.start()
        self._telemetry.start()
        for name, target in (("policy", self._verdicts.follow), ("settle", self._settle)):
            threading.Thread(target=target, args=(self._stop,), name=name, daemon=True).start()

    def stop(self) -> None:
        """End the watches and write what is still to be told, for a few seconds at most."""
        self._stop.set()
        self._watching.stop()
        self._recorder.stop()
        self._telemetry.stop()

    def dump(self) -> bytes:
        """The view and all else that the next decision depends on, as JSON."""
        with self._view.lock:
            now, cluster = self._clock.now(), self._view.snapshot()
        waiting = [found for found in cluster.workloads.values() if found.node is None]
        return dump.write(
            Dump(
                now=now,
                candidates=self._placing.options.candidates,
                cold_start=self._placing.options.cold_start,
                cluster=cluster,
                verdicts={found.uid: self._placing.verdict(found) for found in waiting},
                asked=self._service.recent.all(),
            )
        )

    def _settle(self, stop: threading.Event) -> None:
        """Once the view is complete, leave it to no garbage collection any more.

        It is most of our memory and none of it is garbage; looking through it takes a tenth of a
        second at 5,000 nodes, while the scheduler waits.
        """
        while not self._watching.synced:
            if self._clock.wait(stop, _LOOK_S):
                return
        with self._view.lock:
            self._view.outlooks()
        gc.collect()
        gc.freeze()

    def _observe(self) -> None:
        measured = self.metrics
        measured.observed(
            "extender_nodes", "Managed nodes in the view.", lambda: self._view.managed
        )
        measured.observed(
            "extender_policy_available",
            "1 while policy answers; placement is neutral while it does not.",
            lambda: float(self._verdicts.available),
        )
        measured.observed(
            "extender_watch_broken_seconds",
            "How long the watch that is broken longest has been so.",
            lambda: self._watching.broken_seconds,
        )
        measured.observed(
            "extender_records_dropped",
            "Events and status entries that could not be written.",
            lambda: self._recorder.dropped,
        )


def _policy(settings: Settings) -> PlacementPolicy:
    return OpaPolicy(settings.opa_url) if settings.opa_url else NoPolicy()
