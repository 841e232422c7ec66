"""
Who may do what on one plane, as files: certificates, tokens, kubeconfigs.

Called by: `testbed.controlplane`.
Rule: service accounts get real tokens from TokenRequest and nodes get node certificates, so RBAC,
the Node authorizer and token claims are what they are on a real cluster.
"""

from pathlib import Path
from typing import Any

from testbed import components, files, kubeconfig, pki
from testbed.api import Api
from testbed.components import CONTROLLER_MANAGER, SCHEDULER

TOKEN_S = 30 * 24 * 3600
"""A month: nobody renews tokens here, and `kyb up` may run for long."""


class Credentials:
    """The authority of one plane and what it has signed, in the folders `pki`, `kubeconfigs`."""

    def __init__(self, work: Path, server: str) -> None:
        self._server = server
        self._kubeconfigs = work / "kubeconfigs"
        self.authority = pki.Authority(work / "pki")
        self.ca_file = self.authority.files.certificate
        self.admin = self._issue("admin", "system:admin", "system:masters")
        self.admin_kubeconfig = self._certified("admin", self.admin)

    def server_files(self, scheduler_config: Path) -> components.Files:
        """What the servers read; issues what they show to each other."""
        issue = self.authority.issue
        return components.Files(
            authority=self.authority.files,
            service_accounts=pki.service_account_keys(self.authority.folder),
            serving=issue(
                "serving", common_name="kube-apiserver", addresses=components.APISERVER_NAMES
            ),
            kubelet_client=self._issue("kubelet-client", components.KUBELET_CLIENT),
            kubeconfigs={
                name: self._certified(name, self._issue(name, f"system:{name}"))
                for name in (CONTROLLER_MANAGER, SCHEDULER)
            },
            scheduler_config=scheduler_config,
        )

    def node(self, node: str) -> Path:
        """A kubeconfig with the client certificate of this node's kubelet."""
        name = f"node.{node}"
        return self._certified(name, self._issue(name, f"system:node:{node}", "system:nodes"))

    def service_account(self, api: Api, namespace: str, name: str, node: str | None) -> Path:
        """A kubeconfig with a fresh token, bound to the node when one is named. Raises ApiError."""
        file = ".".join(part for part in (namespace, name, node) if part)
        token = self._kubeconfigs / f"{file}.token"
        files.write_private(token, _token(api, namespace, name, node).encode())
        return self._write(file, kubeconfig.token_user(token))

    def _issue(self, name: str, common_name: str, organization: str | None = None) -> pki.Pair:
        return self.authority.issue(name, common_name=common_name, organization=organization)

    def _certified(self, name: str, pair: pki.Pair) -> Path:
        return self._write(name, kubeconfig.certificate_user(pair))

    def _write(self, name: str, user: dict[str, Any]) -> Path:
        file = self._kubeconfigs / f"{name}.kubeconfig"
        return kubeconfig.write(file, self._server, self.ca_file, user)


def _token(api: Api, namespace: str, name: str, node: str | None) -> str:
    spec: dict[str, Any] = {"expirationSeconds": TOKEN_S}
    if node:
        spec["boundObjectRef"] = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": node,
            "uid": api.get(f"/api/v1/nodes/{node}")["metadata"]["uid"],
        }
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    token: str = api.create(path, request)["status"]["token"]
    return token
