"""
Pods on seats of a real node are deleted, drained and preempted: deleting is not losing.

Real: as conftest says; the hooks are made by the webhook's own code, checkpoints by CRIU.
Observed: the API server, files the pods' own hooks write.
"""

import json
import threading

import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

SERVE = ("serve", "--vram=1Gi", "--address=0.0.0.0")
SEALED = {"kyb.ai/on-delete": "checkpoint"}
NODE = "seats-1"
LONG_S = 120  # a grace period nobody should wait out
# Two GiB of its own, so that a dump takes seconds; as a container's first process it must ask for
# the signal, or it would not be told.
BIG = """
import os, runpy, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
kept = bytearray(os.urandom(2**20)) * 2048
sys.argv[1:] = ["serve", "--vram=1Gi", "--address=0.0.0.0"]
runpy.run_module("testbed.models", run_name="__main__", alter_sys=True)
"""
TAINT = {"key": "kyb.test/real", "operator": "Exists"}


def a_pod(seats, name, hook=None, wishes=None, *, host_pid=True, **spec):
    pod = seats.body(name, *SERVE, vram="1Gi", **spec)
    pod["metadata"]["annotations"] |= wishes or {}
    pod["metadata"]["labels"] = {"kyb.test/drain": "yes"}
    pod["spec"]["hostPID"] = host_pid
    if hook:
        pod["spec"]["containers"][0]["lifecycle"] = {"preStop": hook}
    return pod


def park(seats, name):
    with seats.agent() as agent:
        assert agent.park(WorkloadKey("default", name), within=60.0).ok


def seal(seats, name, checkpoint):
    """The agent's outcome."""
    with seats.agent() as agent:
        return agent.checkpoint(WorkloadKey("default", name), name=checkpoint, within=90.0)


def drafts(seats):
    """What is in the agent's folder of checkpoints that nobody finished."""
    return [*(seats.folder / seats.state_folder / "checkpoints").glob("plain/draft-*")]


def pages(seats):
    """Memory of processes in there."""
    return [one for draft in drafts(seats) for one in draft.rglob("pages-*.img")]


def containerd_said(seats):
    """All it has logged."""
    return (seats.node.work / "log" / "containerd.log").read_text()


def container_of(seats, name):
    """Its id, as containerd has it."""
    (one,) = seats.pod(name)["status"]["containerStatuses"]
    return one["containerID"].removeprefix("containerd://")


def checkpoints(seats):
    listed = seats.plane.kubectl("get", "gpucheckpoints", "-o", "json")
    return json.loads(listed)["items"]


def sealed(seats):
    """Names of those that are ready, by the workload they were made of."""
    return {
        one["spec"]["workload"]: one["metadata"]["name"]
        for one in checkpoints(seats)
        if any(c["type"] == "Ready" and c["status"] == "True"
               for c in one.get("status", {}).get("conditions", ()))
    }  # fmt: skip


def told(seats, name):
    """The notes of a pod's events."""
    events = json.loads(seats.plane.kubectl("get", "events", "-o", "json"))["items"]
    return {one["reason"]: one["message"] for one in events
            if one["involvedObject"]["name"] == name}  # fmt: skip


def test_a_users_own_hook_runs_before_an_active_pod_ends(seats):
    note = seats.folder / "bye"
    hook = {"exec": {"command": ["sh", "-c", f"echo bye > {note}"]}}
    seats.admit(a_pod(seats, "leaves", hook))
    seats.await_state("leaves", "Active")
    seats.seconds_until_gone("leaves")
    assert note.read_text() == "bye\n"


def test_who_has_no_gpu_is_gone_at_once_though_its_hook_and_grace_period_are_long(seats):
    hook = {"sleep": {"seconds": LONG_S - 20}}
    for name in ("parked", "active", "waits"):
        seats.admit(a_pod(seats, name, hook, terminationGracePeriodSeconds=LONG_S))
        seats.await_state(name, "Waiting" if name == "waits" else "Active")
        if name == "parked":
            park(seats, name)
    ids = {name: container_of(seats, name) for name in ("parked", "waits")}
    seconds = seats.seconds_until_gone(*ids)
    print(f"gone after {seconds:.1f} s")
    assert seconds < LONG_S / 4
    said = containerd_said(seats)
    for name, one in ids.items():  # the first signal ends it: nobody waits for the second one
        assert said.count(f'Stop container \\"{one}\\" with signal') == 1, name
        assert f'Kill container \\"{one}\\"' not in said, name


def test_a_container_that_is_killed_ends_though_its_hook_is_still_carried_out(seats):
    """containerd tells of its end once all that it ran in it has ended, hooks included."""
    seats.admit(a_pod(seats, "hooked", {"sleep": {"seconds": LONG_S - 20}}))
    seats.await_state("hooked", "Active")
    ended = f'container exit event container_id:\\"{container_of(seats, "hooked")}'
    seats.plane.kubectl("delete", "pod", "hooked", "--grace-period=1", "--wait=false")
    wait_for(lambda: ended in containerd_said(seats), "it has ended", LONG_S / 2)


def test_a_deleted_pod_is_sealed_first_and_goes_on_where_it_is_asked_for(seats):
    create_sealed(seats, "keeps")
    assert seats.predict("keeps")["counter"] == 1
    seats.seconds_until_gone("keeps")
    made = wait_for(lambda: sealed(seats).get("keeps"), "its checkpoint is ready", 60.0)
    assert made in told(seats, "keeps")["Checkpointed"]

    wishes = {**SEALED, "kyb.ai/restore-from": made}
    seats.admit(a_pod(seats, "keeps-on", wishes=wishes, host_pid=False))
    seats.await_state("keeps-on", "Active")
    answer = seats.predict("keeps-on")
    assert (answer["counter"], answer["intact"]) == (2, True)


@pytest.mark.parametrize(
    ("name", "flags", "why"),
    [
        pytest.param("hurried", ["--grace-period=1"], "s of its grace period are left", id="short"),
        pytest.param("forced", ["--grace-period=0", "--force"], "by force", id="force"),
    ],
)
def test_without_the_time_the_last_checkpoint_is_kept_and_that_is_said(seats, name, flags, why):
    create_sealed(seats, name)
    seats.plane.kubectl("delete", "pod", name, "--wait=true", *flags)

    def said():
        return told(seats, name).get("CheckpointSkipped", "")

    assert why in wait_for(said, "it is said", 60.0)
    assert name not in sealed(seats)


def test_a_drained_node_leaves_checkpoints_of_who_was_active_and_of_who_was_parked(seats):
    create_sealed(seats, "asleep")
    park(seats, "asleep")
    create_sealed(seats, "awake")
    flags = ["--pod-selector=kyb.test/drain=yes", "--force", "--ignore-daemonsets"]
    seats.plane.kubectl("drain", NODE, *flags, "--timeout=120s")
    seats.plane.kubectl("uncordon", NODE)
    wait_for(lambda: {"asleep", "awake"} <= sealed(seats).keys(), "both are sealed", 60.0)


def test_one_that_is_deleted_while_it_is_sealed_leaves_a_whole_checkpoint_or_none(seats):
    """Its dump is under way when its container is ended."""
    pod = a_pod(seats, "halfway", host_pid=False, terminationGracePeriodSeconds=LONG_S)
    pod["spec"]["containers"][0]["command"] = ["python3", "-c", BIG]
    seats.admit(pod)
    seats.await_state("halfway", "Active")
    seats.predict("halfway")
    stop = f'Stop container \\"{container_of(seats, "halfway")}\\" with signal'
    ended = []
    sealing = threading.Thread(target=lambda: ended.append(seal(seats, "halfway", "half")))
    sealing.start()
    wait_for(lambda: pages(seats), "its memory is being written", 60.0)
    seats.plane.kubectl("delete", "pod", "halfway", "--wait=false")
    wait_for(lambda: stop in containerd_said(seats), "containerd stops it", 60.0)
    assert not ended, "the dump was too quick for this test"
    wait_for(lambda: seats.pod("halfway") is None, "it is gone", LONG_S / 2)
    sealing.join()
    print(ended[0])
    wait_for(lambda: seats.state("halfway") == "", "the agent knows", 60.0)
    assert not drafts(seats)
    if ended[0].ok:
        wait_for(lambda: sealed(seats).get("halfway") == "half", "it is ready", 60.0)
    else:
        assert "default/halfway ended meanwhile" in ended[0].message
        assert "halfway" not in sealed(seats)

    seats.admit(a_pod(seats, "next", host_pid=False))
    seats.await_state("next", "Active")
    assert seal(seats, "next", "whole").ok


def test_one_that_kube_scheduler_preempts_leaves_a_checkpoint(seats, priorities):
    cpu = {"cpu": "1200m"}  # of two
    victim = scheduled(seats, "victim", priorities[0], cpu)
    seats.plane.start_scheduler({})
    try:
        seats.admit(victim)
        seats.await_state("victim", "Active")
        seats.admit(scheduled(seats, "urgent", priorities[1], cpu))
        seats.await_state("urgent", "Active")
    finally:
        seats.plane.stop_scheduler()
    assert seats.pod("victim") is None
    wait_for(lambda: "victim" in sealed(seats), "it is sealed", 60.0)


@pytest.fixture(scope="module", autouse=True)
def none_left(seat_node):
    yield
    seat_node.plane.kubectl("delete", "gpucheckpoints", "--all")


@pytest.fixture
def priorities(seats):
    """Two PriorityClasses, the lower one first."""
    names = ("kyb-test-low", "kyb-test-high")
    for value, name in enumerate(names, 1):
        seats.plane.kubectl("create", "priorityclass", name, f"--value={value}")
    yield names
    seats.plane.kubectl("delete", "priorityclass", *names)


def create_sealed(seats, name):
    """Active, and to be sealed when it is deleted."""
    seats.admit(a_pod(seats, name, wishes=SEALED, host_pid=False))
    seats.await_state(name, "Active")


def scheduled(seats, name, priority, requests):
    """A pod for kube-scheduler to place; only this node will do."""
    place = {"kubernetes.io/hostname": NODE}
    pod = a_pod(
        seats, name, wishes=SEALED, host_pid=False, nodeSelector=place, tolerations=[TAINT],
        priorityClassName=priority,
    )  # fmt: skip
    del pod["spec"]["nodeName"]
    pod["spec"]["containers"][0]["resources"]["requests"] = requests
    return pod
