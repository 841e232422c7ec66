"""
The shipped manifests on a control plane of their own.

Real: the API server with RBAC and admission, kubectl, ServiceAccount tokens.
Not there: a kubelet; nothing of ours runs and the webhooks are down throughout, which is meant.
Own plane: a webhook that fails closed must not reach the tests of others.
Rule: every test makes names and namespaces of its own.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3
import yaml

from testbed.controlplane import ControlPlane
from testbed.kubectl import KubectlFailed

MANIFESTS = Path(__file__).parents[2] / "manifests"
SYSTEM = "kyb-system"
OURS = "app.kubernetes.io/part-of=kybernate"
_PATIENCE_S = 30.0
_PATCHES = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}
_numbers = itertools.count(1)

Object = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the API server said. `message` is empty for what it did."""

    status: int
    body: Object

    @property
    def message(self) -> str:
        return str(self.body.get("message", "")) if self.status >= 400 else ""

    @property
    def allowed(self) -> bool:
        """Whether authorization and admission let it through, whatever became of it then."""
        return self.status not in (401, 403)


class Caller:
    """Somebody, speaking plain HTTP so that nothing is tidied up on the way."""

    def __init__(self, plane: ControlPlane, token: str | None = None, **who: str) -> None:
        self._server = plane.server
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.PoolManager(
            ca_certs=str(plane.ca_file), retries=False, timeout=20.0, **who
        )

    def ask(self, method: str, path: str, body: object = None, patch: str = "") -> Answer:
        headers = {**self._headers, "Content-Type": _PATCHES.get(patch, "application/json")}
        content = None if body is None else orjson.dumps(body)
        answer = self._pool.request(method, self._server + path, body=content, headers=headers)
        return Answer(answer.status, orjson.loads(answer.data or b"{}"))

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def watch(self, path: str) -> Answer:
        """How the watch begins; it is not followed."""
        url = f"{self._server}{path}{'&' if '?' in path else '?'}watch=true&timeoutSeconds=5"
        answer = self._pool.request("GET", url, headers=self._headers, preload_content=False)
        answer.close()
        return Answer(answer.status, {})

    def create(self, path: str, body: object) -> Answer:
        return self.ask("POST", path, body)

    def merge(self, path: str, body: object) -> Answer:
        return self.ask("PATCH", path, body, "merge")

    def close(self) -> None:
        self._pool.clear()


@pytest.fixture(scope="session")
def cluster(
    assets: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane with nothing of ours but the namespace (a dry run needs it to be there)."""
    with ControlPlane.start(tmp_path_factory.mktemp("manifests")) as running:
        running.kubectl("apply", "-k", str(MANIFESTS / "components/namespace"))
        yield running


@pytest.fixture(scope="session")
def installed(cluster: ControlPlane) -> ControlPlane:
    """The same with everything a user applies, once it is in force."""
    cluster.kubectl("apply", "-k", str(MANIFESTS / "default"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "-l", OURS)
    _wait_for_admission(cluster)
    return cluster


@pytest.fixture(scope="session")
def built(cluster: ControlPlane) -> Callable[[str], list[Object]]:
    """The objects that a kustomization (a path below manifests/) makes."""

    def build(path: str) -> list[Object]:
        text = cluster.kubectl("kustomize", str(MANIFESTS / path))
        return [one for one in yaml.safe_load_all(text) if one]

    return build


@pytest.fixture
def new_name() -> Callable[[str], str]:
    """`new_name("node")`: a name nobody else has."""
    return lambda what: f"{what}-{next(_numbers)}"


@pytest.fixture
def namespace(installed: ControlPlane, new_name: Callable[[str], str]) -> str:
    """A namespace of the test's own in which pods can be created."""
    name = new_name("test")
    installed.kubectl("create", "namespace", name)
    until(lambda: installed.api.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
    return name


@pytest.fixture
def new_node(installed: ControlPlane, new_name: Callable[[str], str]) -> Callable[[], str]:
    """Makes a Node and answers its name."""

    def make() -> str:
        name = new_name("node")
        installed.api.create("/api/v1/nodes", {"metadata": {"name": name}})
        return name

    return make


@pytest.fixture(scope="session")
def admin(installed: ControlPlane) -> Iterator[Caller]:
    """The break-glass administrator, of group system:masters."""
    pair = installed.credentials.admin
    one = Caller(installed, cert_file=str(pair.certificate), key_file=str(pair.key))
    yield one
    one.close()


@pytest.fixture(scope="session")
def account(installed: ControlPlane) -> Iterator[Callable[..., Caller]]:
    """`account("kyb-nodeagent", node="a")`: somebody with a real ServiceAccount token."""
    made: list[Caller] = []

    def make(name: str, *, node: str | None = None, namespace: str = SYSTEM) -> Caller:
        file = installed.service_account_kubeconfig(namespace, name, node=node)
        user = orjson.loads(file.read_bytes())["users"][0]["user"]
        made.append(Caller(installed, Path(user["tokenFile"]).read_text().strip()))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def user(
    installed: ControlPlane, namespace: str, account: Callable[..., Caller]
) -> Callable[[str], Caller]:
    """`user("edit")`: somebody with this ClusterRole in the test's namespace.

    As a cluster administrator: `user("cluster-admin")` is bound in the whole cluster.
    """

    def make(role: str) -> Caller:
        name = f"a-user-with-{role}"
        installed.kubectl("create", "serviceaccount", name, "-n", namespace)
        kind = "clusterrolebinding" if role == "cluster-admin" else "rolebinding"
        installed.kubectl(
            "create", kind, f"{namespace}-{name}", f"--clusterrole={role}",
            f"--serviceaccount={namespace}:{name}", "-n", namespace,
        )  # fmt: skip
        somebody = account(name, namespace=namespace)
        until(lambda: somebody.get(f"/api/v1/namespaces/{namespace}/pods").allowed)
        return somebody

    return make


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it holds; every question is a request, so this does not spin."""
    end = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"does not hold within {_PATIENCE_S} s"


def _wait_for_admission(plane: ControlPlane) -> None:
    """The API server reads policies and webhooks a moment after they were written: one of each."""
    seat = {"kyb.ai/gpu-1x-seat": "1"}
    spec = {"containers": [{"name": "m", "image": "m", "resources": {"limits": seat}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
    until(lambda: "validate.kyb.ai" in _refusal(plane, pod))
    pod["metadata"] = {"name": "a", "annotations": {"kyb.ai/seat": "G0/0"}}
    pod["spec"] = {"containers": [{"name": "m", "image": "m"}]}
    until(lambda: "kyb-seat-annotation" in _refusal(plane, pod))


def _refusal(plane: ControlPlane, pod: Object) -> str:
    text = orjson.dumps(pod).decode()
    try:
        plane.kubectl("create", "--dry-run=server", "-n", "default", "-f", "-", stdin=text)
    except KubectlFailed as refused:
        return str(refused)
    return ""
