"""
What can be built, and from what.

Called by: `testbed.assets.cache`, which builds it.
Rule: everything that changes a binary changes its `key`, so an old one is never mistaken for it.
Rule: one Go module per upstream project; their dependencies conflict.
"""

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parent / "modules"

KUBERNETES = "1.36.2"
_STRIPPED = "-s -w"
# Without these the servers call themselves v0.0.0-master, and kubectl warns of the skew.
_KUBERNETES_VERSION = " ".join(
    [
        _STRIPPED,
        f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES}",
        "-X k8s.io/component-base/version.gitMajor=1",
        "-X k8s.io/component-base/version.gitMinor=36",
        f"-X k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES}",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One binary: which Go package of which module, and how it is linked."""

    name: str
    module: Path
    """Folder with go.mod and go.sum."""
    package: str
    version: str
    ldflags: str = _STRIPPED
    seconds: int = 60
    """Time to build on two cores with empty caches, in this order; for the progress display."""

    @property
    def key(self) -> str:
        """Twelve hex digits that change with the sources, the flags and the machine's kind."""
        digest = hashlib.sha256()
        for file in ("go.mod", "go.sum"):
            digest.update((self.module / file).read_bytes())
        for text in (self.package, self.ldflags, platform.system(), platform.machine()):
            digest.update(b"\0" + text.encode())
        return digest.hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Name of its folder in the cache."""
        return f"{self.name}-{self.version}-{self.key}"


def _kubernetes(name: str, seconds: int) -> Asset:
    return Asset(
        name=name,
        module=MODULES / "kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        version=KUBERNETES,
        ldflags=_KUBERNETES_VERSION,
        seconds=seconds,
    )


CATALOG = {
    asset.name: asset
    for asset in (
        Asset(
            name="etcd",
            module=MODULES / "etcd",
            package="go.etcd.io/etcd/server/v3",
            version="3.6.8",
            seconds=67,
        ),
        _kubernetes("kube-apiserver", 268),
        _kubernetes("kube-controller-manager", 60),
        _kubernetes("kube-scheduler", 15),
        _kubernetes("kubectl", 25),
        Asset(
            name="opa",
            module=MODULES / "opa",
            package="github.com/open-policy-agent/opa",
            version="1.22.2",
            seconds=69,
        ),
    )
}

ALL = tuple(CATALOG)
CONTROL_PLANE = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
