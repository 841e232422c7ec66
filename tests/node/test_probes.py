"""
Probes of pods on seats of a real node: frozen is not dead, and dead is not frozen.

Real: as conftest says, and the kubelet's probes, made of users' by the webhook's own code.
Observed: the API server, and what the kubelet counts of its probes.
Rule: one crowd for all of the file; it is probed while the tests run, and counted by the last one.
"""

import copy
import json
import re
from dataclasses import dataclass, field

import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for
from webhook import hooks, probes, wire

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PROBES = 3600
WAITING = 16
AGGRESSIVE = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}
# For those that are asked themselves: on a busy machine a second is no sign of a fault.
PATIENT = {**AGGRESSIVE, "timeoutSeconds": 15}
# A model server with grpc.health.v1 beside it, in one process.
GRPC = """
import grpc, runpy, sys
from concurrent.futures import ThreadPoolExecutor
serving = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\\x08\\x01")
health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": serving})
server = grpc.server(ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((health,))
server.add_insecure_port("0.0.0.0:9090")
server.start()
sys.argv[1:] = ["serve", "--vram=1Gi", "--address=0.0.0.0"]
runpy.run_module("testbed.models", run_name="__main__", alter_sys=True)
"""
# The longest waiter is let go first, so it is an http one that shows how it loads.
ACTIONS = {
    "http": {"httpGet": {"path": "/healthz", "port": "web"}},
    "tcp": {"tcpSocket": {"port": 8080}},
    "grpc": {"grpc": {"port": 9090}},
    "exec": {"exec": {"command": ["sh", "-c", "test ! -e /tmp/sick"]}},
}
FIRST = "waits-0"


@dataclass
class Crowd:
    """Pods without their GPU, probed three times a second each; and one that has it."""

    seats: object
    parked: list = field(default_factory=list)
    waiting: list = field(default_factory=list)
    active: str = "active"

    def restarts(self):
        """Of every pod, by the kubelet's word; one call for all."""
        listed = json.loads(self.seats.plane.kubectl("get", "pods", "-o", "json"))["items"]
        return {
            one["metadata"]["name"]: one["status"]["containerStatuses"][0]["restartCount"]
            for one in listed
            if one["metadata"]["name"] in self.seats.kept
        }

    def restarted(self):
        return {name for name, count in self.restarts().items() if count}

    def ready(self, name):
        pod = self.seats.pod(name)
        found = pod["status"].get("conditions", ()) if pod else ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in found)

    def park(self, name):
        with self.seats.agent() as agent:
            assert agent.park(WorkloadKey("default", name), within=60.0).ok

    def resume(self, name):
        with self.seats.agent() as agent:
            assert agent.activate(WorkloadKey("default", name), within=60.0).ok

    def create(self, name, kind, times=PATIENT):
        """A pod all of whose probes are of this kind."""
        self.seats.kept.add(name)
        pod = self.seats.body(name, "serve", "--vram=1Gi", "--address=0.0.0.0", vram="1Gi")
        pod["spec"]["terminationGracePeriodSeconds"] = 5
        (container,) = pod["spec"]["containers"]
        container["ports"] = [{"name": "web", "containerPort": 8080}]
        if kind == "grpc":
            container["command"] = ["python3", "-c", GRPC]
        for one in ("livenessProbe", "readinessProbe", "startupProbe"):
            container[one] = {**ACTIONS[kind], **times}
        container["startupProbe"]["failureThreshold"] = 120
        self.seats.plane.kubectl("create", "-f", "-", stdin=json.dumps(admitted(pod)))

    def gather(self):
        for kind in ACTIONS:
            name = f"parked-{kind}"
            self.create(name, kind)
            self.seats.await_state(name, "Active")
            wait_for(lambda name=name: self.ready(name), f"{name} is ready", 60.0)
            self.park(name)
            self.parked.append(name)
        self.create(self.active, "exec")
        self.seats.await_state(self.active, "Active")
        wait_for(lambda: self.ready(self.active), "the active one is ready", 60.0)
        kinds = list(ACTIONS)
        for number in range(WAITING):
            times = PATIENT if number < 2 else AGGRESSIVE  # the first two will have their turn
            self.create(f"waits-{number}", kinds[number % len(kinds)], times)
            self.waiting.append(f"waits-{number}")
            if number == 0:
                self.seats.await_state(FIRST, "Waiting")
        wait_for(lambda: set(self.states()) == {"Waiting"}, "all wait", 120.0)

    def states(self):
        return [self.seats.state(name) for name in self.waiting]

    def scatter(self):
        names = sorted(self.seats.kept)
        force = ("--force", "--grace-period=0", "--ignore-not-found", "--wait=false")
        self.seats.plane.kubectl("delete", "pod", *names, *force)
        self.seats.kept.clear()
        self.seats.forget()


def admitted(pod):
    """As the webhook would let it in."""
    pod = copy.deepcopy(pod)
    annotations = pod["metadata"]["annotations"]
    for change in wire.patch_of((*probes.additions(pod), *hooks.additions(pod, annotations))):
        *parents, last = change["path"].split("/")[1:]
        target = pod
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        target[last] = change["value"]
    return pod


@pytest.fixture(scope="module")
def crowd(seat_node):
    gathered = Crowd(seat_node)
    try:
        gathered.gather()
        yield gathered
    finally:
        gathered.scatter()


def counted(seats):
    """Probes by result, as the kubelet counts them."""
    text = seats.plane.kubectl("get", "--raw", "/api/v1/nodes/seats-1/proxy/metrics/probes")
    found = {}
    for labels, number in re.findall(r"^prober_probe_total\{(.*)\} (\S+)$", text, re.MULTILINE):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if named["pod"].startswith(("parked-", "waits-")):
            key = (named["probe_type"], named["result"])
            found[key] = found.get(key, 0) + int(float(number))
    return found


def test_a_pod_without_its_gpu_is_alive_and_one_that_was_ready_stays_so(crowd):
    assert crowd.restarted() == set()
    assert all(crowd.ready(name) for name in crowd.parked)
    assert not any(crowd.ready(name) for name in crowd.waiting)


def test_probes_are_answered_while_the_agent_is_away(crowd):
    seats = crowd.seats
    before = counted(seats)[("Liveness", "successful")]
    seats.kill_agent()
    try:
        more = 3 * len(crowd.restarts())
        wait_for(lambda: counted(seats)[("Liveness", "successful")] > before + more, "asked", 60.0)
    finally:
        seats.start_agent()
    assert crowd.restarted() == set()
    assert all(crowd.ready(name) for name in crowd.parked)


def test_a_users_own_failing_probe_restarts_its_container_and_who_waited_may_load(crowd):
    seats = crowd.seats
    seats.plane.kubectl("exec", crowd.active, "--", "touch", "/tmp/sick")
    wait_for(lambda: crowd.restarts()[crowd.active] == 1, "it is restarted", 90.0)
    said = seats.plane.kubectl("describe", "pod", crowd.active)
    assert "Liveness probe failed" in said
    seats.await_state(FIRST, "Active")
    wait_for(lambda: crowd.ready(FIRST), "who waited has loaded", 90.0)
    assert crowd.restarted() == {crowd.active}


def test_one_that_is_resumed_and_parked_again_is_never_restarted(crowd):
    crowd.park(FIRST)
    assert crowd.ready(FIRST)
    second = crowd.waiting[1]
    crowd.seats.await_state(second, "Active")
    assert crowd.restarts()[FIRST] == 0


def test_thousands_of_probes_are_answered_and_nobody_is_restarted(crowd):
    def all_of_them():
        return sum(counted(crowd.seats).values())

    wait_for(lambda: all_of_them() >= PROBES, f"{PROBES} probes", 300.0)
    print(counted(crowd.seats))
    assert crowd.restarted() == {crowd.active}
    assert counted(crowd.seats).get(("Liveness", "failed"), 0) == 0
