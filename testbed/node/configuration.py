"""
How containerd, the kubelet and the CNI plugins of a node are configured, as texts.

Called by: `testbed.node.realnode`.
Rule: pure; where the design needs a value, the reason stands beside it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.node import network
from testbed.node.keeper import State

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
PAUSE = "kyb.test/pause:1"
ANNOTATIONS = ("kyb.ai/*",)
_CRIU = "network-lock {lock}\n"


def containerd(
    root: Path, cni: Path, networks: Path, runtimes: Mapping[str, Path], snapshotter: str
) -> str:
    """containerd.toml: one runtime a handler, with the runc (or stand-in) it calls.

    `root` keeps images and snapshots; `cni` holds the plugins, `networks` their configuration.
    """
    handlers = "".join(_runtime(name, program) for name, program in sorted(runtimes.items()))
    return f"""version = 3
root = {_text(root)}
state = "/run/containerd"

[grpc]
  address = {_text(CONTAINERD_SOCKET)}

[plugins."io.containerd.cri.v1.images"]
  snapshotter = {_text(snapshotter)}
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = {_text(PAUSE)}

[plugins."io.containerd.cri.v1.runtime"]
  # without CAP_SYS_RESOURCE a score can only be raised
  restrict_oom_score_adj = true
  # its profile would be loaded into the machine's kernel, and stay there
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [{_text(cni)}]
  conf_dir = {_text(networks)}
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
{handlers}"""


def _runtime(name: str, program: Path) -> str:
    table = f'plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{_text(name)}'
    annotations = json.dumps(ANNOTATIONS)
    return f"""[{table}]
  runtime_type = "io.containerd.runc.v2"
  pod_annotations = {annotations}
  container_annotations = {annotations}
[{table}.options]
  BinaryName = {_text(program)}
  SystemdCgroup = false
"""


def kubelet(
    state: State, authority: Path, serving: tuple[Path, Path], more: Mapping[str, Any]
) -> dict[str, Any]:
    """A KubeletConfiguration; `serving` is its certificate and key, `more` overrides any field."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": state.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving[0]),
        "tlsPrivateKeyFile": str(serving[1]),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "failCgroupV1": False,  # v1 is refused by default since 1.35, and may be gone in 1.38
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{state.cgroup}",
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,  # nothing here needs iptables
        # A developer's disk is often 90 % full, which is no reason to evict a test.
        "evictionHard": dict.fromkeys(
            ("memory.available", "nodefs.available", "imagefs.available", "nodefs.inodesFree"), "0%"
        ),
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "",
        **more,
    }


def cni(pods: str) -> dict[str, Any]:
    """One bridge for this node's pods; its other pods and the machine are on the same link."""
    return {
        "cniVersion": "1.0.0",
        "name": "kyb",
        "plugins": [
            {
                "type": "bridge",
                "bridge": network.BRIDGE,
                "isGateway": False,  # the bridge has its address, and forwarding is not needed
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[network.pod_range(pods)]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }


def criu(lock: str) -> str:
    """CRIU's configuration file; `lock` keeps packets away while connections are dumped."""
    return _CRIU.format(lock=lock)


def _text(value: object) -> str:
    """A TOML basic string, which a JSON string is."""
    return json.dumps(str(value))
