"""
Putting the parts together: inventory, groups, one server and registration per resource.

Called by: `__main__`, tests.
"""

import threading
from functools import partial
from pathlib import Path

from deviceplugin.agent import Agent
from deviceplugin.offer import Extras, GuestFiles
from deviceplugin.registration import Registration
from deviceplugin.server import Plugin, PluginServer
from deviceplugin.settings import Settings
from deviceplugin.watching import Seats, Watch
from kybernate.api.profiles import ProfileFile, load_profiles
from kybernate.clients.clock import Clock
from kybernate.clients.gpus import Inventory, InventoryAway
from kybernate.clients.gpus.choosing import InventorySource, open_answering
from kybernate.decisions.grouping import groups_of, missing, topology_table
from kybernate.model.gpu import Gpu
from kybernate.model.ids import ResourceName
from kybernate.runtime import serving, textfile
from kybernate.runtime.health import Health
from kybernate.runtime.logs import get_logger
from kybernate.runtime.metrics import Metrics

PRELOAD = "ld.so.preload"  # beside the library: what the loader reads
_RETRY_S = 2.0  # a driver or device that is not there yet


class Process:
    """The device plugin, from settings. `run` returns when stopped."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Reads the profile file. Raises Malformed with every fault, OSError."""
        self._settings = settings
        self._clock = clock
        self._text = textfile.read(settings.profiles, "the profile file")
        self._listed = load_profiles(self._text).gpus
        self._metrics, self._health = Metrics(), Health()
        self._allocations = self._metrics.counter(
            "deviceplugin_allocations", "containers that asked for a seat", ["resource", "outcome"]
        )

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop`. Seats of a group whose GPUs are not all there are unhealthy."""
        self._health.ready("gpus", lambda: "the GPUs have not answered yet")
        with serving.telemetry(self._settings.metrics_listen, self._health, self._metrics):
            found = self._await_gpus(stop)
            if found is None:
                return
            inventory, gpus = found
            try:
                self._serve(inventory, gpus, load_profiles(self._text), stop)
            finally:
                inventory.close()

    def _await_gpus(self, stop: threading.Event) -> tuple[Inventory, tuple[Gpu, ...]] | None:
        while not stop.is_set():
            try:
                return open_answering(
                    self._settings.inventory, self._listed, self._settings.simulated_gpu
                )
            except InventoryAway as away:
                get_logger().warning("waiting for the GPUs", why=str(away))
            self._clock.wait(stop, _RETRY_S)
        return None

    def _serve(
        self,
        inventory: Inventory,
        gpus: tuple[Gpu, ...],
        profiles: ProfileFile,
        stop: threading.Event,
    ) -> None:
        groups = groups_of(profiles.profiles, gpus, profiles.listed)
        get_logger().info("groups formed", topology=topology_table(gpus, groups))
        for group in groups:
            if gone := missing(group, gpus):
                get_logger().error("listed GPUs are not there", group=group.name, gpus=list(gone))
        seats = Seats(groups, gpus)
        watch = Watch(inventory, seats, self._clock, self._settings.health_every)
        self._health.ready("gpus", watch.fault)
        agent = Agent(self._settings.agent_socket)
        registrations = [self._registration(name, seats, agent) for name in seats.resources()]
        self._measure(seats)
        every = self._settings.kubelet_every
        threads = [threading.Thread(target=watch.run, args=(stop,), name="gpus")]
        threads += [
            threading.Thread(target=one.run, args=(stop, every), name="registration")
            for one in registrations
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        seats.end()
        for thread in threads:
            thread.join()
        agent.close()

    def _registration(self, resource: ResourceName, seats: Seats, agent: Agent) -> Registration:
        plugin = Plugin(
            resource,
            seats,
            agent,
            self._extras,
            lambda name, outcome: self._allocations.labels(name, outcome).inc(),
        )
        socket = self._settings.plugin_dir / f"{resource.replace('/', '-')}.sock"
        registration = Registration(
            resource, PluginServer(plugin, socket), self._settings.plugin_dir, self._clock
        )
        self._health.ready(f"kubelet {resource}", registration.fault)
        return registration

    def _extras(self) -> Extras:
        """As of now: the agent brings the library, maybe after our start."""
        settings = self._settings
        simulated = settings.simulated_gpu
        return Extras(
            device_nodes=tuple(node for node in settings.control_nodes if Path(node).exists()),
            guest=self._guest(),
            cdi_kind=settings.cdi_kind,
            simulated_gpu=str(simulated.absolute()) if simulated else "",
        )

    def _guest(self) -> GuestFiles | None:
        library, socket = self._settings.guest_library, self._settings.guest_socket
        simulated = self._settings.inventory is InventorySource.SIMULATED
        if simulated or library is None or socket is None:
            return None
        files = (library, library.with_name(PRELOAD))
        if gone := [str(file) for file in files if not file.is_file()]:
            get_logger().warning("no guest library for containers", missing=gone)
            return None
        return GuestFiles(library=str(library), preload=str(files[1]), socket=str(socket))

    def _measure(self, seats: Seats) -> None:
        gauge = self._metrics.gauge(
            "deviceplugin_healthy_seats", "seats that can be had", ["resource"]
        )
        for resource in seats.resources():
            gauge.labels(resource).set_function(partial(_healthy, seats, resource))


def _healthy(seats: Seats, resource: ResourceName) -> float:
    return seats.healthy()[resource]
