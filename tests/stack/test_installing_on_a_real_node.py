"""
The shipped DaemonSets on a real node: installed, upgraded and removed with a parked pod on it, and
a Deployment's only pod that goes on in the pod that takes its place.

Real: the control plane with our controller, OPA, extender, webhook and scheduler; kubelet,
containerd and runc; the manifests of the agent and the device plugin, their init container, their
ServiceAccounts. Different from what is shipped: the agent uses the node's network (there is no
cluster network) and the OPA beside the control plane, GPUs are simulated. Images: those of the
Dockerfile where they were built (`make images` names their folder in KYB_IMAGES), else one that is
made here in a moment of what the Dockerfile has.
Rule: the tests are one story, in order: each leaves the node to the next.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from kybernate.clients.agents import Agent, AgentAway
from kybernate.model.ids import WorkloadKey
from testbed.assets import native
from testbed.kubectl import KubectlFailed
from testbed.node import images, layout
from testbed.node.commands import CommandFailed
from testbed.node.realnode import RealNode
from testbed.node.spec import NodeSpec
from testbed.stack import Stack, programs, realnodes

pytestmark = [
    pytest.mark.controlplane,
    pytest.mark.node,
    pytest.mark.crash,
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).parents[2]
NODE = "shipped"
IMAGE = "docker.io/kybernate/nodeagent:0.1.0"
BUILT = os.environ.get("KYB_IMAGES")
PACKAGES = ("kybernate", "nodeagent", "deviceplugin", "kyb", "testbed", "policies")
SYSTEM = ("-n", "kyb-system")
KEY = WorkloadKey("default", "model")
PROGRAM = "/opt/kybernate/bin/kybernate-runc"
DROP_IN = "/etc/containerd/conf.d/50-kybernate.toml"
# What would be written on the machine: the node has its own of each.
STATE = "/var/lib/kyb"
OWN = {
    "/etc": ("containerd", "kyb"),
    "/opt": ("kybernate",),
    "/dev/shm": ("kyb",),
    "/var/lib": ("kyb",),
}
OWNING = """
import sys
from pathlib import Path
from testbed.node import mounts
mounts.own(Path(sys.argv[1]), tuple(sys.argv[2:]))
"""
# The one image that is made here serves as both.
MADE_PLUGIN = (
    ("containers/0/image", IMAGE),
    ("containers/0/command", ["python3", "-m", "deviceplugin"]),
)
KYB = '#!/bin/sh\nexec python3 -m kyb "$@"\n'
OF_THE_NODE = "/opt/of-the-node"  # as the Dockerfile has it: runc and CRIU are the node's own
OF_THE_IMAGE = f"{OF_THE_NODE}:/opt/venv/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Shipped:
    """The cluster, its one node, and how they are looked at."""

    stack: Stack
    node: RealNode
    gpu: Path
    eventually: Callable[..., Any]

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.stack.plane.kubectl(*words, stdin=stdin)

    def kyb(self, *words: str) -> str:
        """On the node; what it printed, whatever it ended with."""
        argv = [sys.executable, "-m", "kyb", *words]
        try:
            return self.node.run(*argv)
        except CommandFailed as failed:
            return str(failed)

    def doctor(self) -> dict[str, dict[str, str]]:
        """By check."""
        said = self.kyb("doctor", "--node-local", "--quick", "--json")
        found = json.loads(said[said.index("{") :])
        return {one["check"]: one for one in found["nodes"]["this machine"]}

    def agent(self) -> Agent:
        return Agent.on_node(self.node.root / "run/kyb/agent.sock")

    def state(self, key: WorkloadKey = KEY) -> str:
        """Of a workload, by its agent; empty while that is away."""
        with self.agent() as agent:
            try:
                found = agent.state().workload(key)
            except AgentAway:
                return ""
        return found.state.value if found else ""

    def log(self, daemonset: str, container: str) -> str:
        """Of the newest pod of a DaemonSet; what it says while it has none to tell of."""
        try:
            selector = f"app.kubernetes.io/name={daemonset}"
            return self.kubectl("logs", *SYSTEM, "-l", selector, "-c", container, "--tail=-1")
        except KubectlFailed as not_yet:
            return str(not_yet)

    def rolled_out(self, daemonset: str) -> None:
        self.kubectl("rollout", "status", *SYSTEM, f"daemonset/{daemonset}", "--timeout=100s")

    def found(self, *words: str) -> Any:
        """What `kubectl get` answers, or its items."""
        body = json.loads(self.kubectl("get", *words, "-o", "json"))
        return body.get("items", body)

    def predict(self, name: str = "model") -> dict[str, Any]:
        address = self.found("pod", name)["status"]["podIP"]
        answer = urllib3.request("POST", f"http://{address}:8080/predict", timeout=60.0)
        body: dict[str, Any] = answer.json()
        return body

    def there(self, path: str) -> bool:
        """Whether the node has such a file."""
        return (self.node.root / path.lstrip("/")).exists()


@pytest.fixture(scope="module")
def shipped(assets: Any, eventually: Callable[..., Any]) -> Iterator[Shipped]:
    """A stack without light nodes, and a real one that knows nothing of us yet."""
    if problem := realnodes.why_not():
        pytest.skip(problem)
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="kyb-")))
        stack = closing.enter_context(Stack.start(folder / "s", []))
        spec = NodeSpec(name=NODE, runtimes={}, kubelet={"runtimeRequestTimeout": "20s"})
        node = closing.enter_context(RealNode.start(stack.plane, folder / "r", spec))
        for parent, names in OWN.items():
            node.run(sys.executable, "-S", "-c", OWNING, parent, *names)
        node.run("mkdir", "-p", STATE)
        node.run("mount", "-t", "tmpfs", "kyb", STATE)
        node.reach(int(stack.opa.url.rpartition(":")[2]))
        if BUILT:
            for one in ("nodeagent", "deviceplugin"):
                node.import_archive(Path(BUILT).absolute() / f"{one}.tar")
        else:
            node.import_image(IMAGE, _image(node, folder))
        gpu = folder / "g" / "gpu.sock"
        gpu.parent.mkdir()
        argv = [
            sys.executable, "-m", "testbed.gpu", f"--socket={gpu}", f"--name={NODE}",
            "--card=Simulated H100=80Gi", "--scale=16384", "--bus=400000000000",
        ]  # fmt: skip
        where = realnodes.where(node)
        programs.start(node.processes, "gpu", argv, ready=gpu.exists, where=where)
        stack.plane.kubectl("label", "node", NODE, "kyb.ai/managed=true")
        yield Shipped(stack, node, gpu, eventually)


def _image(node: RealNode, folder: Path) -> Any:
    """What the Dockerfile's targets hold, made of what is installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distributions = [re.split(r"[\[=]", one)[0] for one in project["dependencies"]]
    image = node.python_image(distributions, [ROOT / one for one in PACKAGES])
    (folder / "kyb").write_text(KYB)
    (folder / "kyb").chmod(0o755)
    nsenter = Path(shutil.which("nsenter") or "")
    shipped = {
        **images.libraries([nsenter]),
        "/bin/nsenter": nsenter,
        f"{OF_THE_NODE}/runc": ROOT / "manifests/images/of-the-node",
        f"{OF_THE_NODE}/criu": ROOT / "manifests/images/of-the-node",
        "/usr/local/bin/kyb": folder / "kyb",
        "/usr/local/lib/kybernate/kybernate-runc": native.runtime(),
        "/usr/local/lib/kybernate/kyb-closed.so": native.criu_plugins() / native.PLUGIN,
        "/usr/local/lib/kybernate/libkybguest.so": native.guest(),
    }
    return replace(image, tree={**image.tree, **shipped}, entrypoint=["python3", "-m", "nodeagent"])


def _apply(here: Shipped, path: str, *patches: dict[str, Any]) -> None:
    """A component of the manifests, with the differences that this place asks for."""
    with tempfile.TemporaryDirectory() as name:
        body = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(ROOT / "manifests/components" / path, name)],
            "patches": list(patches),
        }
        (Path(name) / "kustomization.yaml").write_text(yaml.safe_dump(body))
        restrictor = "--load-restrictor=LoadRestrictionsNone"
        text = here.kubectl("kustomize", restrictor, name)
    here.kubectl("apply", "--server-side", "-f", "-", stdin=text)


def _patch(*operations: tuple[str, Any]) -> dict[str, Any]:
    """Of a DaemonSet's pod: add each value at its path."""
    text = [
        {"op": "add", "path": f"/spec/template/spec/{path}", "value": value}
        for path, value in operations
    ]
    return {"patch": yaml.safe_dump(text), "target": {"kind": "DaemonSet"}}


def _agent_patch(here: Shipped, version: str) -> dict[str, Any]:
    return _patch(
        ("hostNetwork", True),
        ("containers/0/args/-", "--inventory=simulated"),
        ("containers/0/args/-", f"--simulated-gpu={here.gpu}"),
        ("containers/0/args/-", f"--opa-url={here.stack.opa.url}"),
        ("containers/0/resources/requests/memory", "1Gi"),
        ("containers/0/env/-", {"name": "VERSION", "value": version}),
        ("containers/0/env/-", {"name": "PATH", "value": _path(here)}),
        *_mounted(here),
    )


def _path(here: Shipped) -> str:
    """The image's, and where this node has its programs: not in /usr/bin, as others have them."""
    return f"{OF_THE_IMAGE}:{here.node.work / layout.BIN}"


def _mounted(here: Shipped) -> tuple[tuple[str, Any], ...]:
    folder = str(here.gpu.parent)
    return (
        ("containers/0/volumeMounts/-", {"name": "gpu", "mountPath": folder}),
        ("volumes/-", {"name": "gpu", "hostPath": {"path": folder}}),
    )


def _install(here: Shipped, version: str = "1") -> None:
    _apply(here, "profiles")
    _apply(here, "nodeagent", _agent_patch(here, version))
    plugin = _patch(
        *(() if BUILT else MADE_PLUGIN),
        ("containers/0/args/-", "--inventory=simulated"),
        ("containers/0/args/-", f"--simulated-gpu={here.gpu}"),
        *_mounted(here),
    )
    _apply(here, "deviceplugin", plugin)
    here.rolled_out("kyb-nodeagent")
    here.rolled_out("kyb-deviceplugin")


def _install_node() -> tuple[str, ...]:
    plugin = native.criu_plugins() / native.PLUGIN
    return (
        "install-node",
        f"--program={native.runtime()}",
        f"--criu-plugin={plugin}",
        f"--guest-library={native.guest()}",
    )


def _import_drop_ins(here: Shipped) -> None:
    """As it says to do; a containerd of an ordinary node has this line from the beginning."""
    main = here.node.work / layout.CONTAINERD
    imports = "imports = ['/etc/containerd/conf.d/*.toml']"
    assert imports in here.kyb(*_install_node())
    main.write_text(f"{imports}\n{main.read_text()}")


def test_the_agents_daemonset_brings_the_runtime_and_people_restart_containerd(
    shipped: Shipped,
) -> None:
    assert shipped.doctor()["runtime handler"]["grade"] == "fault"
    refused = shipped.kyb(*_install_node())
    assert "reads no folder of drop-in files" in refused
    assert not shipped.there(PROGRAM)
    _import_drop_ins(shipped)
    _install(shipped)
    said = shipped.log("kyb-nodeagent", "node-files")
    assert f"wrote {PROGRAM}" in said
    assert f"wrote {DROP_IN}" in said
    assert "left to do: restart containerd" in said
    before = shipped.doctor()
    assert "newer than its process" in before["runtime handler"]["found"]
    shipped.node.stop_containerd()
    shipped.node.start_containerd()
    after = shipped.doctor()
    assert after["runtime handler"]["grade"] == "ok", after
    # Half of the kubelet's patience, which is short here.
    assert (after["agent-wait"]["grade"], after["agent-wait"]["found"]) == ("ok", "10 s")
    assert after["CRIU"]["grade"] == "ok", after["CRIU"]
    assert "kept " + PROGRAM in shipped.kyb(*_install_node())
    seen = shipped.eventually(lambda: (seen := _seen(shipped)) and not _faulty(seen) and seen)
    assert seen["runtime handler"]["grade"] == "ok"
    assert seen["runtimeRequestTimeout"]["found"] == "20 s"


def _faulty(seen: dict[str, dict[str, str]]) -> set[str]:
    return {check for check, one in seen.items() if one["grade"] in ("fault", "unknown")}


def _seen(here: Shipped) -> dict[str, dict[str, str]]:
    """By check, of what the API server tells of the node."""
    kubeconfig = f"--kubeconfig={here.stack.plane.admin_kubeconfig}"
    argv = [sys.executable, "-m", "kyb", "doctor", "--json", kubeconfig]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    return {one["check"]: one for one in json.loads(done.stdout)["nodes"][NODE]}


def test_an_upgrade_of_the_agent_leaves_a_parked_pod_as_it_is(
    shipped: Shipped, a_seat_pod: Callable[..., dict[str, Any]]
) -> None:
    serve = ["python3", "-m", "testbed.models", "serve", "--vram=512Mi", "--address=0.0.0.0"]
    pod = a_seat_pod("model", serve, vram="512Mi")
    pod["spec"].pop("priorityClassName")
    pod["spec"]["containers"][0]["image"] = IMAGE
    shipped.kubectl("create", "-f", "-", stdin=yaml.safe_dump(pod))
    shipped.eventually(lambda: shipped.state() == "Active", within=120.0)
    shipped.eventually(lambda: "serving on" in shipped.kubectl("logs", "model"))
    assert shipped.predict()["counter"] == 1
    with shipped.agent() as agent:
        assert agent.park(KEY, within=60.0).ok
    _install(shipped, version="2")
    said = shipped.log("kyb-nodeagent", "node-files")
    assert "wrote" not in said
    assert "left to do" not in said
    shipped.eventually(lambda: shipped.state() == "Parked")
    with shipped.agent() as agent:
        assert agent.activate(KEY, within=60.0).ok
    answer = shipped.predict()
    assert (answer["counter"], answer["intact"]) == (2, True)
    (container,) = shipped.found("pod", "model")["status"]["containerStatuses"]
    assert container["restartCount"] == 0


def test_a_deployments_only_pod_goes_on_in_the_pod_that_takes_its_place(
    shipped: Shipped, a_seat_pod: Callable[..., dict[str, Any]]
) -> None:
    """Deleted, when its place is taken before it is sealed; and scaled to none and to one again,
    when the webhook names what was sealed."""
    _deploy(shipped, a_seat_pod)
    first = _goes_on(shipped)
    assert shipped.predict(first)["counter"] == 1
    shipped.kubectl("delete", "pod", first, "--wait=false")
    second = _goes_on(shipped, besides=first)
    answer = shipped.predict(second)
    assert (answer["counter"], answer["intact"]) == (2, True), _told(shipped, second)
    (made,) = shipped.found("gpucheckpoints")
    assert made["spec"]["workload"] == "deployment.keeper"

    shipped.kubectl("scale", "deployment/keeper", "--replicas=0")
    shipped.eventually(lambda: not shipped.found("pods", "-l", "app=keeper"), within=120.0)
    newest = shipped.eventually(lambda: _ready(shipped) - {made["metadata"]["name"]})
    shipped.kubectl("scale", "deployment/keeper", "--replicas=1")
    third = _goes_on(shipped)
    assert newest <= set(
        shipped.found("pod", third)["metadata"]["annotations"]["kyb.ai/restore-from"].split(",")
    )
    answer = shipped.predict(third)
    assert (answer["counter"], answer["intact"]) == (3, True), _told(shipped, third)
    shipped.kubectl("delete", "deployment", "keeper", "--cascade=foreground", "--timeout=60s")


def _deploy(here: Shipped, a_seat_pod: Callable[..., dict[str, Any]]) -> None:
    serve = ["python3", "-m", "testbed.models", "serve", "--vram=512Mi", "--address=0.0.0.0"]
    pod = a_seat_pod("keeper", serve, vram="512Mi", annotations={"kyb.ai/on-delete": "checkpoint"})
    for name in ("priorityClassName", "restartPolicy", "terminationGracePeriodSeconds"):
        pod["spec"].pop(name)
    pod["spec"]["containers"][0]["image"] = IMAGE
    labels = {"app": "keeper"}
    meant = {"annotations": pod["metadata"]["annotations"], "labels": labels}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "keeper", "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": meant, "spec": pod["spec"]},
        },
    }
    here.kubectl("create", "-f", "-", stdin=yaml.safe_dump(body))


def _goes_on(here: Shipped, besides: str = "") -> str:
    """The Deployment's pod, once it has its GPU and listens."""
    try:
        found: str = here.eventually(lambda: _active(here, besides), within=120.0)
    except AssertionError as late:
        named = [one["metadata"]["name"] for one in here.found("pods", "-l", "app=keeper")]
        raise AssertionError("".join(_told(here, name) for name in named)) from late
    return found


def _active(here: Shipped, besides: str) -> str:
    """The pod that has its GPU, and the one before is gone."""
    there = [one["metadata"]["name"] for one in here.found("pods", "-l", "app=keeper")]
    if len(there) != 1 or there[0] == besides:
        return ""
    key = WorkloadKey("default", there[0])
    return there[0] if here.state(key) == "Active" and _listens(here, there[0]) else ""


def _listens(here: Shipped, name: str) -> bool:
    address = here.found("pod", name)["status"].get("podIP")
    try:
        urllib3.request("GET", f"http://{address}:8080/state", timeout=5.0, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    return True


def _ready(here: Shipped) -> set[str]:
    return {
        one["metadata"]["name"]
        for one in here.found("gpucheckpoints")
        for said in one.get("status", {}).get("conditions", ())
        if (said["type"], said["status"]) == ("Ready", "True")
    }


def _told(here: Shipped, pod: str) -> str:
    """All that may say why a pod did not go on."""
    said = here.kubectl("get", "events", "--sort-by=.lastTimestamp")
    said += json.dumps(here.found("pod", pod))
    with here.agent() as agent:
        said += str(agent.state())
    for words in ((pod,), (pod, "--previous"), (*SYSTEM, "daemonset/kyb-nodeagent")):
        try:
            said += here.kubectl("logs", *words, "--tail=100")
        except KubectlFailed as none:
            said += str(none)
    return said


def test_removal_is_refused_while_a_parked_pod_needs_the_runtime_and_clean_afterwards(
    shipped: Shipped,
) -> None:
    with shipped.agent() as agent:
        assert agent.park(KEY, within=60.0).ok
    shipped.kubectl("delete", *SYSTEM, "daemonset", "kyb-deviceplugin", "kyb-nodeagent")
    _apply(shipped, "node-uninstaller")
    said = shipped.eventually(
        lambda: (
            (said := shipped.log("kyb-node-uninstaller", "node-files"))
            and "default/model" in said
            and said
        )
    )
    assert "delete them first" in said
    assert shipped.there(PROGRAM)
    # Without its agent a parked pod can still be deleted: the runtime thaws what it ends.
    shipped.kubectl("delete", "pod", "model", "--timeout=60s")
    shipped.kubectl("delete", *SYSTEM, "pod", "-l", "app.kubernetes.io/name=kyb-node-uninstaller")
    shipped.rolled_out("kyb-node-uninstaller")
    said = shipped.log("kyb-node-uninstaller", "node-files")
    assert f"removed {PROGRAM}" in said
    assert "left to do: remove /dev/shm/kyb: contents of 1 workloads" in said
    assert not any(map(shipped.there, ("/opt/kybernate/bin", DROP_IN, "/etc/kyb/runtime.conf")))
