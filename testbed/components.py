"""
How the servers of the control plane are started: one function a server, answering its arguments.

Called by: `testbed.controlplane`.
Rule: pure; nothing is started or written here.
Rule: the work folder is every server's current folder, so etcd's unix socket has a short name,
which the kernel limits to 108 bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.pki import Pair
from testbed.ports import LOOPBACK

ETCD = "etcd"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
SECURE = (APISERVER, CONTROLLER_MANAGER, SCHEDULER)
"""The servers with an HTTPS port."""

KUBELET_CLIENT = "kube-apiserver-kubelet-client"
SERVICE_ADDRESSES = "10.0.0.0/24"
APISERVER_NAMES = (
    LOOPBACK,
    "localhost",
    "10.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
)
# A unix socket instead of a port: no clash, and the folder's mode keeps other users out.
# etcd wants a "port" in every address; it becomes part of the file's name.
SOCKET = "etcd.sock:0"
_ETCD = f"unix://{SOCKET}"
_PEER = "unix://peer.sock:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the servers read."""

    authority: Pair
    service_accounts: Pair
    serving: Pair
    kubelet_client: Pair
    """How the API server shows itself to kubelets."""
    kubeconfigs: Mapping[str, Path]
    """By the server's name."""
    scheduler_config: Path


def etcd() -> list[str]:
    """The store, in the folder `etcd`. No fsync: a crash of the machine costs a test, no more."""
    return [
        "--data-dir=etcd",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_PEER}",
        "--unsafe-no-fsync",
    ]


def apiserver(files: Files, port: int) -> list[str]:
    """RBAC and Node authorization, and the node restriction that goes with the latter."""
    keys = files.service_accounts
    return [
        *_secure(files, port),
        f"--advertise-address={LOOPBACK}",  # or it looks for a default route, which may be missing
        f"--etcd-servers={_ETCD}",
        f"--client-ca-file={files.authority.certificate}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={keys.certificate}",
        f"--service-account-signing-key-file={keys.key}",
        "--endpoint-reconciler-type=none",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={files.authority.certificate}",
        f"--kubelet-client-certificate={files.kubelet_client.certificate}",
        f"--kubelet-client-key={files.kubelet_client.key}",
    ]


def controller_manager(files: Files, port: int) -> list[str]:
    """All its controllers, with limits on requests so high that tests do not wait for them."""
    return [
        *_secure(files, port),
        *_delegated(files.kubeconfigs[CONTROLLER_MANAGER]),
        f"--kubeconfig={files.kubeconfigs[CONTROLLER_MANAGER]}",
        f"--root-ca-file={files.authority.certificate}",
        f"--cluster-signing-cert-file={files.authority.certificate}",
        f"--cluster-signing-key-file={files.authority.key}",
        f"--service-account-private-key-file={files.service_accounts.key}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def scheduler(files: Files, port: int) -> list[str]:
    """Everything of interest is in its configuration file."""
    return [
        *_secure(files, port),
        *_delegated(files.kubeconfigs[SCHEDULER]),
        f"--config={files.scheduler_config}",
    ]


def scheduler_config(body: Mapping[str, Any], kubeconfig: Path) -> dict[str, Any]:
    """The caller's KubeSchedulerConfiguration with what only the testbed knows filled in."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        **body,
        "clientConnection": {**body.get("clientConnection", {}), "kubeconfig": str(kubeconfig)},
        "leaderElection": {"leaderElect": False},
    }


def _secure(files: Files, port: int) -> list[str]:
    return [
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        "--permit-port-sharing=true",  # testbed.ports holds the port all the time
        f"--tls-cert-file={files.serving.certificate}",
        f"--tls-private-key-file={files.serving.key}",
    ]


def _delegated(kubeconfig: Path) -> list[str]:
    """Who may read /metrics is asked of the API server."""
    return [
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
    ]
