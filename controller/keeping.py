"""The last good policies, in the cluster: what a controller that just started serves at once.

Called by: `process`. The leader writes the ConfigMap `kyb-policies-in-force` whenever the bundle in
force is another; every replica takes it over as long as it has none of its own. So policies that
were saved badly are absent for nobody, also after every controller pod was replaced. Rule: what is
too large for a ConfigMap is not kept, and said.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from controller.bundles import Bundle
from controller.duties import Duty
from controller.publication import Publication
from kybernate.clients.clock import Clock
from kybernate.clients.errors import NotFound
from kybernate.clients.kube import Kube
from kybernate.clients.reflector import Change, Reflector
from kybernate.clients.resources import CONFIGMAPS
from kybernate.runtime.logs import get_logger

CONFIGMAP = "kyb-policies-in-force"
MEMBER = "kyb.tar.gz"
LARGEST = 700 * 1024  # bytes of a bundle; base64 makes it 4/3, and an object has 1 MiB at most


class Keeping:
    """Watches what is kept: every replica takes it over, the leader writes it."""

    def __init__(self, kube: Kube, clock: Clock, namespace: str, publication: Publication) -> None:
        self._kube, self._namespace, self._publication = kube, namespace, publication
        self._kept: Reflector[bytes] = Reflector(
            kube,
            CONFIGMAPS,
            namespace=namespace,
            field_selector=f"metadata.name={CONFIGMAP}",
            project=_content,
            on_change=self._taken,
        )
        self.watches = (self._kept,)
        self.duty: Duty[str] = Duty("keeping", clock, self.look, lambda: [CONFIGMAP])
        self._log = get_logger(duty="keeping")

    def look(self, _key: str = CONFIGMAP) -> float | None:
        """Keep what is in force. Raises ApiError."""
        if not self._kept.synced:
            return 0.5
        bundle = self._publication.current
        if bundle is None or self._kept.get((self._namespace, CONFIGMAP)) == bundle.content:
            return None
        if len(bundle.content) > LARGEST:
            size, words = len(bundle.content), "these policies are not kept over our restart"
            self._log.warning(words, revision=bundle.revision, bytes=size, limit=LARGEST)
            return None
        self._write(bundle)
        self._log.info("kept", revision=bundle.revision)
        return None

    def _write(self, bundle: Bundle) -> None:
        data = {MEMBER: base64.b64encode(bundle.content).decode()}
        try:
            patch = {"binaryData": data}
            self._kube.patch(CONFIGMAPS, CONFIGMAP, patch, self._namespace)
        except NotFound:
            labels = {"app.kubernetes.io/part-of": "kybernate"}
            metadata = {"namespace": self._namespace, "name": CONFIGMAP, "labels": labels}
            self._kube.create(CONFIGMAPS, {"metadata": metadata, "binaryData": data})

    def _taken(self, change: Change[bytes]) -> None:
        if change.new is not None and self._publication.adopt(change.new):
            self._log.info("the policies in force before are served")
        self.duty.touch(CONFIGMAP)


def _content(obj: Mapping[str, Any]) -> bytes | None:
    try:
        return base64.b64decode((obj.get("binaryData") or {}).get(MEMBER, ""), validate=True)
    except (binascii.Error, ValueError):
        return None
