"""
Which Deployments that may go to zero somebody waits for: told to the controller by our own record.

Called by: `wakes`. Several activators may want one Deployment, and none of them writes it: each has
a Lease `kyb-activator-NAME` in our namespace, and the leading controller, who alone scales, unites
what stands in those that are renewed. Rule: it is written when it changes, and renewed only while
something is wanted, so that one that died wants nothing soon after.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from activator.models import ModelId
from kybernate.api import names, timestamps
from kybernate.clients.clock import Clock
from kybernate.clients.errors import ApiError, NotFound
from kybernate.clients.kube import Kube, Obj
from kybernate.clients.resources import LEASES
from kybernate.runtime.logs import get_logger

LENGTH_S = 15  # of the Lease; a record that is older counts for nothing
RENEW_S = 5.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Ours:
    """Where our record is, who we are, and the uid of our pod, if we run in one."""

    namespace: str
    identity: str
    pod_uid: str = ""


class Wanted:
    """`add` and `discard` in the loop's thread; a thread of its own writes."""

    def __init__(self, kube: Kube, clock: Clock, ours: Ours) -> None:
        self._kube, self._clock, self._namespace = kube.within(RENEW_S), clock, ours.namespace
        self._identity, self._pod_uid = ours.identity, ours.pod_uid
        self._wanted: dict[ModelId, str] = {}
        self._written = "[]"
        self._dirty, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="wanted", daemon=True)
        self._log = get_logger(lease=self.name)

    @property
    def name(self) -> str:
        """Of the record."""
        return f"{names.ACTIVATOR_LEASE_PREFIX}{self._identity}"

    def start(self) -> None:
        """Begin to write; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Want nothing any more, and say so."""
        self._wanted = {}
        self._stopping.set()
        self._dirty.set()
        self._thread.join(RENEW_S)

    def add(self, model: ModelId, deployment: str) -> None:
        """Somebody waits for this Deployment."""
        self._change(lambda wanted: wanted | {model: deployment})

    def discard(self, model: ModelId) -> None:
        """Nobody waits for it any more, or it came."""
        if model in self._wanted:
            self._change(lambda wanted: {one: name for one, name in wanted.items() if one != model})

    def _change(self, how: Callable[[dict[ModelId, str]], dict[ModelId, str]]) -> None:
        self._wanted = how(self._wanted)  # replaced whole: the other thread reads it
        self._dirty.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._dirty.wait(RENEW_S)
            self._dirty.clear()
            if not self._write():
                self._clock.wait(self._stopping, RETRY_S)
                self._dirty.set()
        self._write()

    def _write(self) -> bool:
        wanted = sorted((model.namespace, name) for model, name in self._wanted.items())
        text = orjson.dumps(wanted).decode()
        if text == self._written == "[]":
            return True
        try:
            self._put(text)
        except ApiError as problem:
            self._log.warning("what is wanted is not written", detail=str(problem))
            return False
        self._written = text
        return True

    def _put(self, text: str) -> None:
        body: Obj = {
            "metadata": {"annotations": {names.WANTED: text}},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LENGTH_S,
                "renewTime": timestamps.rfc3339_micro(self._clock.now()),
            },
        }
        try:
            self._kube.patch(LEASES, self.name, body, self._namespace)
        except NotFound:
            body["metadata"] |= {
                "namespace": self._namespace,
                "name": self.name,
                "ownerReferences": self._owners(),
            }
            self._kube.create(LEASES, body, self._namespace)

    def _owners(self) -> list[Obj]:
        """Our pod: the record goes when it does."""
        if not self._pod_uid:
            return []
        pod = {"apiVersion": "v1", "kind": "Pod", "name": self._identity, "uid": self._pod_uid}
        return [pod]
