"""
When each server of the control plane is ready, which is later than when it says so.

Called by: `testbed.controlplane`.
Rule: ready means that the next step cannot fail for being too early.
"""

from testbed import components
from testbed.api import Api, ApiError

# kube-controller-manager and kube-scheduler die when they start before it is there.
_AUTHENTICATION = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
# Pods are refused before it is there.
_FIRST_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


def apiserver(api: Api) -> bool:
    """The other servers can start."""
    return api.exists("/readyz") and api.exists(_AUTHENTICATION)


def controllers(api: Api, url: str) -> bool:
    """Pods can be created, and metrics read."""
    return api.exists(_FIRST_ACCOUNT) and _answers(api, f"{url}/metrics")


def scheduler(api: Api, url: str) -> bool:
    """It has its view of the cluster, and knows who may read its metrics."""
    return _answers(api, f"{url}/readyz") and _answers(api, f"{url}/metrics")


def let_apiserver_ask_kubelets(api: Api) -> None:
    """Logs, exec and checkpoints go through kubelets, which ask whether this asker may."""
    name = "testbed-kubelet-client"
    if api.exists(f"{_BINDINGS}/{name}"):
        return
    group = "rbac.authorization.k8s.io"
    role = {"kind": "ClusterRole", "apiGroup": group, "name": "system:kubelet-api-admin"}
    user = {"kind": "User", "apiGroup": group, "name": components.KUBELET_CLIENT}
    api.create(_BINDINGS, {"metadata": {"name": name}, "roleRef": role, "subjects": [user]})


def _answers(api: Api, url: str) -> bool:
    try:
        api.text(url)
    except ApiError:
        return False
    return True
