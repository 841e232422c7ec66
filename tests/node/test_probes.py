"""
Probes of pods on seats of a real node: frozen is not dead, and dead is not frozen.

Real: as conftest says, and the kubelet's probes, made of users' by the webhook's own code.
Observed: the API server, and what the kubelet counts of its probes.
Rule: one crowd for all of the file; it is probed while the tests run, and counted by the last one.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PROBES = 3600
HELD_S = 60
WAITING = 8  # with the parked ones 40 probes a second, each a process or two
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
ACTIONS = {
    "http": {"httpGet": {"path": "/healthz", "port": "web"}},
    "tcp": {"tcpSocket": {"port": 8080}},
    "grpc": {"grpc": {"port": 9090}},
    "exec": {"exec": {"command": ["sh", "-c", "test ! -e /tmp/sick"]}},
}
FIRST = "waits-0"  # the longest waiter has the next turn


@dataclass
class Crowd:
    """Pods without their GPU, probed three times a second each; and one that has it."""

    seats: object
    parked: list = field(default_factory=list)
    waiting: list = field(default_factory=list)
    active: str = "active"
    job: str = ""
    at_first: dict = field(default_factory=dict)

    def containers(self):
        """The kubelet's word on each, in one call for all."""
        listed = json.loads(self.seats.plane.kubectl("get", "pods", "-o", "json"))["items"]
        return {
            one["metadata"]["name"]: one["status"]["containerStatuses"][0]
            for one in listed
            if one["metadata"]["name"] in self.seats.kept and one["status"].get("containerStatuses")
        }

    def counts(self):
        return {name: one["restartCount"] for name, one in self.containers().items()}

    def restarted(self):
        """Since they were gathered: a kubelet of so little patience may have to begin twice."""
        return {name for name, count in self.counts().items() if count > self.at_first[name]}

    def ends(self):
        """How those that were restarted had ended, what the kubelet said of them and what the
        agent did, for the message of a failed test."""
        found, kubectl = self.containers(), self.seats.plane.kubectl
        agent = self.seats.node.processes.log("agent").read_text(errors="replace").splitlines()
        return "\n".join(
            f"{name}: {found[name].get('lastState')}\n{kubectl('events', f'--for=pod/{name}')}"
            + "\n".join(line for line in agent if name in line)
            for name in self.restarted()
        )

    def ready(self):
        return {name for name, one in self.containers().items() if one["ready"]}

    def park(self, name):
        with self.seats.agent() as agent:
            assert agent.park(WorkloadKey("default", name), within=60.0).ok

    def resume(self, name):
        with self.seats.agent() as agent:
            assert agent.activate(WorkloadKey("default", name), within=60.0).ok

    def create(self, *pods):
        self.seats.kept.update(one["metadata"]["name"] for one in pods)
        listed = {"apiVersion": "v1", "kind": "List", "items": [*map(self.seats.admitted, pods)]}
        self.seats.plane.kubectl("create", "-f", "-", stdin=json.dumps(listed))

    def a_pod(self, name, kind, times=PATIENT):
        """All of its probes are of this kind."""
        pod = self.seats.body(name, "serve", "--vram=1Gi", "--address=0.0.0.0", vram="1Gi")
        pod["spec"]["terminationGracePeriodSeconds"] = 5
        (container,) = pod["spec"]["containers"]
        container["ports"] = [{"name": "web", "containerPort": 8080}]
        if kind == "grpc":
            container["command"] = ["python3", "-c", GRPC]
        for one in ("livenessProbe", "readinessProbe", "startupProbe"):
            container[one] = {**ACTIONS[kind], **times}
        container["startupProbe"]["failureThreshold"] = 120
        return pod

    def gather_parked(self):
        for kind in ACTIONS:
            name = f"parked-{kind}"
            self.create(self.a_pod(name, kind))
            self.seats.await_state(name, "Active")
            wait_for(lambda name=name: name in self.ready(), f"{name} is ready", 60.0)
            self.park(name)
            self.parked.append(name)

        self.at_first = self.counts()

    def gather_waiting(self):
        self.create(self.a_pod(self.active, "exec"))
        self.seats.await_state(self.active, "Active")
        wait_for(lambda: self.active in self.ready(), "the active one is ready", 60.0)
        self.create(self.a_pod(FIRST, "http"))
        self.seats.await_state(FIRST, "Waiting")
        self.job = self.begin_job()
        self.seats.await_state(self.job, "Waiting")
        kinds = list(ACTIONS)
        self.waiting = [f"waits-{number}" for number in range(WAITING)]
        self.create(
            *(self.a_pod(f"waits-{n}", kinds[n % 4], AGGRESSIVE) for n in range(1, WAITING))
        )
        wait_for(lambda: set(self.states()) == {"Waiting"}, "all wait", 120.0)
        self.at_first = self.counts()

    def begin_job(self):
        """Its pod, which must not be tried again."""
        pod = self.seats.admitted(self.a_pod("job", "exec"))
        pod["spec"] |= {"restartPolicy": "Never"}
        pod["spec"]["containers"][0]["command"][3:] = ["train", "--vram=1Gi", "--steps=3"]
        head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}
        template = {"metadata": {"annotations": pod["metadata"]["annotations"]}}
        spec = {"backoffLimit": 0, "template": {**template, "spec": pod["spec"]}}
        self.seats.create({**head, "spec": spec})
        find = ("get", "pods", "--selector=job-name=job", "-o", "name")
        found = wait_for(lambda: self.seats.plane.kubectl(*find).strip(), "its pod is there", 60.0)
        self.seats.kept.add(found.removeprefix("pod/"))
        return found.removeprefix("pod/")

    def states(self):
        view = self.seats.view()
        if view is None:
            return []
        found = [view.workload(WorkloadKey("default", name)) for name in self.waiting]
        return [one.state.value if one else "" for one in found]

    def scatter(self):
        names = sorted(self.seats.kept)
        force = ("--force", "--grace-period=0", "--ignore-not-found", "--wait=false")
        self.seats.plane.kubectl("delete", "pod", *names, *force)
        self.seats.kept.clear()
        self.seats.forget()


@pytest.fixture(scope="module")
def parked(seat_node):
    """Only they are there yet."""
    gathered = Crowd(seat_node)
    try:
        gathered.gather_parked()
        yield gathered
    finally:
        gathered.scatter()


@pytest.fixture(scope="module")
def crowd(parked):
    parked.gather_waiting()
    return parked


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


def test_one_that_is_resumed_and_parked_again_stays_ready_and_is_not_restarted(parked):
    again = parked.parked[0]
    parked.resume(again)
    asked = counted(parked.seats)[("Liveness", "successful")]
    more = 3 * len(parked.parked)
    wait_for(lambda: counted(parked.seats)[("Liveness", "successful")] > asked + more, "asked")
    parked.park(again)
    assert parked.ready() == set(parked.parked)
    assert parked.restarted() == set(), parked.ends()


def test_a_pod_without_its_gpu_is_alive_and_one_that_was_ready_stays_so(crowd):
    assert crowd.restarted() == set(), crowd.ends()
    assert crowd.ready() == {*crowd.parked, crowd.active}


def test_probes_are_answered_while_the_agent_is_away(crowd):
    seats = crowd.seats
    before = counted(seats)[("Liveness", "successful")]
    seats.kill_agent()
    try:
        more = 3 * len(crowd.containers())
        wait_for(lambda: counted(seats)[("Liveness", "successful")] > before + more, "asked", 60.0)
    finally:
        seats.start_agent()
    assert crowd.restarted() == set(), crowd.ends()
    assert set(crowd.parked) <= crowd.ready()


def test_a_users_own_failing_probe_restarts_its_container_and_who_waited_may_load(crowd):
    seats = crowd.seats
    # The agent was restarted: until it sees a probe pass, a container is one that loads to it.
    asked, more = counted(seats)[("Liveness", "successful")], 3 * len(crowd.containers())
    wait_for(lambda: counted(seats)[("Liveness", "successful")] > asked + more, "asked", 60.0)
    seats.plane.kubectl("exec", crowd.active, "--", "touch", "/tmp/sick")
    wait_for(lambda: crowd.restarted() == {crowd.active}, "it is restarted", 90.0)

    def told():  # events come after what they are about
        return "Liveness probe failed" in seats.plane.kubectl("describe", "pod", crowd.active)

    wait_for(told, "the event says why", 60.0)
    seats.await_state(FIRST, "Active")
    wait_for(lambda: FIRST in crowd.ready(), "who waited has loaded", 90.0)
    assert crowd.restarted() == {crowd.active}, crowd.ends()


def test_thousands_of_probes_are_answered_and_nobody_is_restarted(crowd):
    def all_of_them():
        return sum(counted(crowd.seats).values())

    wait_for(lambda: all_of_them() >= PROBES, f"{PROBES} probes", 300.0)
    print(counted(crowd.seats))
    assert crowd.restarted() == {crowd.active}, crowd.ends()
    assert counted(crowd.seats).get(("Liveness", "failed"), 0) == 0


def test_a_job_held_for_a_minute_under_a_kubelet_with_ten_seconds_of_patience_completes(crowd):
    crowd.park(FIRST)
    wait_for(lambda: crowd.seats.phase(crowd.job) == "Succeeded", "it completes", 90.0)
    (state,) = (one["state"]["terminated"] for one in [crowd.containers()[crowd.job]])
    began, ended = (datetime.fromisoformat(state[name]) for name in ("startedAt", "finishedAt"))
    assert (ended - began).total_seconds() > HELD_S
    assert crowd.counts()[crowd.job] == 0
