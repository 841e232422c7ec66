"""
The resources of the API server that we touch, and the paths they are at.
"""

from dataclasses import dataclass
from urllib.parse import quote

from kybernate.api import names


@dataclass(frozen=True, slots=True)
class Resource:
    """One REST resource. `group` is "" for core/v1."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
    ) -> str:
        """`/api/v1/namespaces/x/pods/y/status`; without a namespace: of all namespaces.

        Raises ValueError for one object of a namespaced resource without its namespace.
        """
        if self.namespaced and name is not None and not namespace:
            raise ValueError(f"{self.plural} {name!r}: a namespace is needed")
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


PODS = Resource("", "v1", "pods", "Pod")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
STATEFULSETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
PRIORITYCLASSES = Resource(
    "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False
)
MUTATING_WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING_WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)
GPUNODES = Resource(names.GROUP, names.VERSION, "gpunodes", "GpuNode", namespaced=False)
GPUWORKLOADS = Resource(names.GROUP, names.VERSION, "gpuworkloads", "GpuWorkload")
GPUCHECKPOINTS = Resource(names.GROUP, names.VERSION, "gpucheckpoints", "GpuCheckpoint")
CHECKPOINTPOLICIES = Resource(names.GROUP, names.VERSION, "checkpointpolicies", "CheckpointPolicy")
CHECKPOINTREQUESTS = Resource(names.GROUP, names.VERSION, "checkpointrequests", "CheckpointRequest")
TIERPLACEMENTS = Resource(names.GROUP, names.VERSION, "tierplacements", "TierPlacement")
RESTOREREQUESTS = Resource(names.GROUP, names.VERSION, "restorerequests", "RestoreRequest")
