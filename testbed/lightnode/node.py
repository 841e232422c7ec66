"""
The light node: everything of one node, in one process.

Called by: `__main__`, tests. `run` serves until stopped, and then ends the pods' processes; killed
instead, it leaves them to its next life, which goes on with them.
"""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from kybernate.clients.clock import Clock
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.leases import LeaseHeartbeat
from kybernate.clients.reflector import Change, Reflector
from kybernate.clients.resources import PODS
from testbed.lightnode import addresses, podresources
from testbed.lightnode.agent import Agent
from testbed.lightnode.container import Container
from testbed.lightnode.nodeobject import LEASE_NAMESPACE, NodeFacts, NodeObject
from testbed.lightnode.plugins import Plugins
from testbed.lightnode.podlife import PodLife
from testbed.lightnode.podrecord import Records
from testbed.lightnode.surroundings import Surroundings

# Of our own environment, what a local process cannot do without.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")
_SYNC_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders and sockets."""

    work: Path
    plugin_dir: Path
    podresources: Path
    agent: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What tests may want otherwise."""

    facts: NodeFacts
    restart_after: float = 10.0  # the kubelet's
    inherited: tuple[str, ...] = field(default=_INHERITED)


class LightNode:
    """One node. `start`, then `stop` (end the pods) or `abandon` (as if killed)."""

    def __init__(self, kube: Kube, places: Places, habits: Habits, clock: Clock) -> None:
        self._places = places
        self._clock = clock
        self._lock = threading.RLock()
        self._lives: dict[str, PodLife] = {}
        self._records = Records(places.work)
        self._plugins = Plugins(places.plugin_dir, self._devices_changed)
        self._agent = Agent(places.agent)
        self._object = NodeObject(kube, habits.facts, clock)
        name = habits.facts.name
        self._heartbeat = LeaseHeartbeat(kube, LEASE_NAMESPACE, name, name, clock)
        self._pods: Reflector[Obj] = Reflector(
            kube, PODS, field_selector=f"spec.nodeName={name}", on_change=self._pod_changed
        )
        self._around = Surroundings(
            kube=kube,
            plugins=self._plugins,
            agent=self._agent,
            records=self._records,
            clock=clock,
            host_ip=habits.facts.address,
            inherited={key: os.environ[key] for key in habits.inherited if key in os.environ},
            restart_after=habits.restart_after,
            address=self._address,
        )
        self._log = structlog.get_logger(node=name)

    def start(self) -> None:
        """Register, listen, and look after pods; returns when the Node is there.

        Raises TimeoutError when the API server does not answer for a minute.
        """
        self._plugins.start()
        lister = podresources.PodResources(self._plugins, self._active_pods)
        self._lister = podresources.serve(lister, self._places.podresources)
        self._devices_changed()
        self._object.start()
        if not self._object.wait_registered(_SYNC_S):
            raise TimeoutError("the Node could not be registered")
        self._heartbeat.start()
        self._pods.start()
        if not self._pods.wait_synced(_SYNC_S):
            raise TimeoutError("pods could not be listed")
        self._forget_others()
        self._log.info("node ready", pods=len(self._lives))

    def stop(self) -> None:
        """Stop, and end the processes of all pods."""
        lives = self._let_go()
        for life in lives:
            life.end_process()

    def abandon(self) -> None:
        """Stop, and leave the processes to the next life of this node."""
        self._let_go()

    def settled(self) -> None:
        """Some pod's devices are free."""
        with self._lock:
            active = {uid for uid, life in self._lives.items() if life.active}
        self._plugins.keep_only(active)

    def ended(self, life: PodLife) -> None:
        """A pod is no more."""
        with self._lock:
            self._lives.pop(life.identity.uid, None)
        self.settled()

    def _let_go(self) -> list[PodLife]:
        self._pods.stop()
        self._heartbeat.stop()
        self._object.stop()
        with self._lock:
            lives = list(self._lives.values())
        for life in lives:
            life.leave()
        self._lister.stop(None).wait()
        self._plugins.stop()
        return lives

    def _pod_changed(self, change: Change[Obj]) -> None:
        new, old = change.new, change.old
        uid = new["metadata"]["uid"] if new else None
        if old and old["metadata"]["uid"] != uid:
            with self._lock:
                former = self._lives.get(old["metadata"]["uid"])
            if former:
                former.gone()
        if new is not None and uid is not None:
            self._see(uid, new)

    def _see(self, uid: str, pod: Obj) -> None:
        with self._lock:
            life = self._lives.get(uid)
            if life is not None:
                life.update(pod)
                return
            life = PodLife(pod, self._around, self)
            self._lives[uid] = life
        life.start()

    def _forget_others(self) -> None:
        """Pods that were removed while we were away."""
        with self._lock:
            known = set(self._lives)
        for record in self._records.all():
            if record.uid in known:
                continue
            container = Container.find(self._records.attempt(record))
            if container is not None:
                container.end()
            self._records.forget(record.uid)
        self.settled()

    def _devices_changed(self) -> None:
        self._object.see(self._plugins.counts())

    def _active_pods(self) -> list[podresources.ActivePod]:
        with self._lock:
            lives = [life.identity for life in self._lives.values() if life.active]
        return [(one.namespace, one.name, one.uid) for one in lives]

    def _address(self) -> str:
        """Called while a life is made, under the lock."""
        taken = {life.pod_ip for life in self._lives.values()}
        taken |= {record.pod_ip for record in self._records.all()}
        return addresses.pick(self._places.work, taken)
