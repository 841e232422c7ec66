"""
What can be built or unpacked, and from what.

Called by: `testbed.assets.cache`, which does it.
Rule: everything that changes a binary changes its `key`, so an old one is never mistaken for it.
Rule: one Go module per upstream project; their dependencies conflict.
"""

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

from testbed.assets.debian import Packaged

MODULES = Path(__file__).parent / "modules"

KUBERNETES = "1.36.2"
CONTAINERD = "2.3.4"
_STRIPPED = "-s -w"
_CONTAINERD_VERSION = (
    f"{_STRIPPED} -X github.com/containerd/containerd/v2/version.Version=v{CONTAINERD}"
)
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

    @property
    def program(self) -> str:
        """Its path in that folder."""
        return self.name


def _kubernetes(name: str, seconds: int) -> Asset:
    return Asset(
        name=name,
        module=MODULES / "kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        version=KUBERNETES,
        ldflags=_KUBERNETES_VERSION,
        seconds=seconds,
    )


def _containerd(name: str, seconds: int) -> Asset:
    return Asset(
        name=name,
        module=MODULES / "containerd",
        package=f"github.com/containerd/containerd/v2/cmd/{name}",
        version=CONTAINERD,
        ldflags=_CONTAINERD_VERSION,
        seconds=seconds,
    )


BUILT = (
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
    _kubernetes("kubelet", 60),
    _containerd("containerd", 60),
    _containerd("containerd-shim-runc-v2", 15),
    _containerd("ctr", 15),
    # A stock proxy, which the activator is measured beside.
    Asset(
        name="caddy",
        module=MODULES / "caddy",
        package="github.com/caddyserver/caddy/v2/cmd/caddy",
        version="2.11.9",
        seconds=90,
    ),
)

# What runs on every Debian since comes from the oldest suite that has it: its libraries are oldest.
_OLDEST = "bookworm"
# CRIU before 4.2 does not know the vdso of Linux 6.18, and no released Debian has 4.2.
_NEWEST = "forky"
# What headless Chromium links against, and a font; libc and libgcc are the machine's own.
_BROWSER = """
chromium-common fontconfig-config fonts-dejavu-core libasound2 libasyncns0 libatk1.0-0
libatspi2.0-0 libblkid1 libbrotli1 libbsd0 libcap2 libdav1d6 libdbus-1-3 libdouble-conversion3
libdrm2 libexpat1 libffi8 libflac12 libfontconfig1 libfreetype6 libgbm1 libgcrypt20 libglib2.0-0
libgpg-error0 libgraphite2-3 libharfbuzz-subset0 libharfbuzz0b libicu72 libjpeg62-turbo liblz4-1
liblzma5 libmd0 libminizip1 libmount1 libmp3lame0 libmpg123-0 libnspr4 libnss3 libogg0
libopenh264-7 libopus0 libpcre2-8-0 libpng16-16 libpulse0 libselinux1 libsndfile1 libsqlite3-0
libstdc++6 libsystemd0 libudev1 libvorbis0a libvorbisenc2 libwayland-server0 libx11-6
libx11-xcb1 libxau6 libxcb1 libxcomposite1 libxdamage1 libxdmcp6 libxext6 libxfixes3 libxi6
libxkbcommon0 libxml2 libxnvctrl0 libxrandr2 libxrender1 libzstd1 zlib1g
"""
PACKAGED = (
    Packaged(name="runc", suite=_OLDEST, root="runc", program="usr/sbin/runc"),
    Packaged(
        name="cni-plugins",
        suite=_OLDEST,
        root="containernetworking-plugins",
        program="usr/lib/cni",
    ),
    Packaged(name="busybox", suite=_OLDEST, root="busybox-static", program="bin/busybox"),
    Packaged(
        name="criu",
        suite=_NEWEST,
        root="criu",
        alone=False,
        program="criu",
        launched="usr/sbin/criu",
        seconds=12,
    ),
    # The other libc of containers: what must not break on seats.
    Packaged(name="musl", suite=_OLDEST, root="musl", program="lib/ld-musl-x86_64.so.1"),
    # Builds images without a daemon; its libraries are found by a loader's cache of its caller's.
    Packaged(
        name="buildah",
        suite=_OLDEST,
        root="buildah",
        also=("libassuan0", "libdevmapper1.02.1", "libgpg-error0", "libgpgme11", "libseccomp2"),
        program="usr/bin/buildah",
    ),
    Packaged(name="mmdebstrap", suite=_OLDEST, root="mmdebstrap", program="usr/bin/mmdebstrap"),
    Packaged(
        name="chromium",
        suite=_OLDEST,
        root="chromium-headless-shell",
        also=tuple(_BROWSER.split()),
        program="usr/lib/chromium/chromium-headless-shell",
        seconds=40,
    ),
)

CATALOG: dict[str, Asset | Packaged] = {asset.name: asset for asset in (*BUILT, *PACKAGED)}

CONTROL_PLANE = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
USUAL = (*CONTROL_PLANE, "opa")
"""What nearly everybody needs; the rest is built when it is asked for."""
NODE_BUILT = ("kubelet", "containerd", "containerd-shim-runc-v2", "ctr")
NODE_PACKAGED = ("runc", "cni-plugins", "busybox", "criu")
NODE = (*NODE_BUILT, *NODE_PACKAGED)
"""What a real node runs."""
ALL = tuple(CATALOG)
