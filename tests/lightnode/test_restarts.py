"""A light node that was killed goes on with the pods it had; so does everybody who talks to it."""

import os
from pathlib import Path

import grpc
import pytest

from kybernate.clients.pb import podresources_pb2, podresources_pb2_grpc
from kybernate.clients.resources import NODES, PODS
from testbed.lightnode.ending import end_pods

pytestmark = pytest.mark.controlplane
SEAT = "kyb.ai/gpu-1x-seat"


@pytest.fixture
def seats_there(admin, node_name, until):
    return lambda: until(
        lambda: admin.get(NODES, node_name)["status"]["allocatable"].get(SEAT) == "4"
    )


@pytest.fixture
def pod_resources(work):
    """Asks PodResources: pod name -> device ids."""

    def ask():
        with grpc.insecure_channel(
            f"unix://{work}/podresources.sock", options=(("grpc.default_authority", "localhost"),)
        ) as channel:
            lister = podresources_pb2_grpc.PodResourcesListerStub(channel)
            reply = lister.List(podresources_pb2.ListPodResourcesRequest())
        return {
            pod.name: [id_ for c in pod.containers for d in c.devices for id_ in d.device_ids]
            for pod in reply.pod_resources
        }

    return ask


def kill(process):
    process.kill()
    process.wait()


def running(status, name):
    return status(name).get("phase") == "Running" and status(name)


def test_a_pod_lives_through_the_nodes_death(program, pod, status, until, work):
    process = program()
    pod("lasting", "sh", "-c", "echo $$$$; sleep 600")
    until(lambda: running(status, "lasting"))
    (log,) = (work / "node" / "logs").glob("*_lasting_*.log")
    until(log.read_text)
    kill(process)
    program()
    until(lambda: running(status, "lasting"))
    assert status("lasting")["containerStatuses"][0]["restartCount"] == 0
    (number,) = log.read_text().split()
    assert Path(f"/proc/{number}").exists()


def test_an_end_nobody_saw_is_still_known(program, pod, status, until, work):
    process = program()
    go = work / "go"
    os.mkfifo(go)
    pod("unseen", "sh", "-c", f"read line <{go}; exit 7", restartPolicy="Never")
    until(lambda: running(status, "unseen"))
    kill(process)
    go.write_text("now\n")
    (folder,) = (work / "node" / "pods").iterdir()
    until((folder / "0" / "exit").exists)
    program()
    until(lambda: status("unseen").get("phase") == "Failed")
    (shown,) = status("unseen")["containerStatuses"]
    assert shown["state"]["terminated"]["exitCode"] == 7


def test_a_pod_deleted_meanwhile_ends_after_all(program, pod, status, until, admin, namespace):
    process = program()
    pod("doomed", "sleep", "600")
    until(lambda: running(status, "doomed"))
    kill(process)
    admin.delete(PODS, "doomed", namespace)
    assert status("doomed")
    program()
    until(lambda: not status("doomed"))


def test_a_pod_removed_meanwhile_leaves_no_process(
    program, pod, status, until, admin, namespace, work
):
    process = program()
    pod("removed", "sleep", "600")
    until(lambda: running(status, "removed"))
    (folder,) = (work / "node" / "pods").iterdir()
    number = (folder / "0" / "pid").read_text().strip()
    kill(process)
    admin.delete(PODS, "removed", namespace, grace_seconds=0)
    program()
    until(lambda: not Path(f"/proc/{number}").exists())
    until(lambda: not folder.exists())


def test_a_killed_nodes_pods_can_be_ended(program, pod, status, until, work):
    process = program()
    pod("left", "sleep", "600")
    until(lambda: running(status, "left"))
    kill(process)
    assert end_pods(work / "node") == 1
    assert end_pods(work / "node") == 0


def test_a_node_that_is_stopped_ends_its_pods(program, pod, status, until, work):
    process = program()
    pod("ended", "sleep", "600")
    until(lambda: running(status, "ended"))
    process.terminate()
    assert process.wait() == 0
    assert end_pods(work / "node") == 0


def test_seats_stay_given_and_plugins_come_back(
    program, device_plugin, pod, status, until, seats_there, pod_resources
):
    process = program()
    device_plugin()
    seats_there()
    pod("seated", "sleep", "600", seat=1)
    until(lambda: running(status, "seated"))
    before = pod_resources()
    assert list(before) == ["seated"]
    kill(process)
    program()
    seats_there()
    assert pod_resources() == before
    pod("other", "sleep", "600", seat=1)
    until(lambda: running(status, "other"))
    (one,), (other,) = pod_resources()["seated"], pod_resources()["other"]
    assert one != other


def test_a_held_container_is_told_of_once(program, device_plugin, pod, status, until, seats_there,
                                          agent, runtime_class):  # fmt: skip
    process = program()
    device_plugin()
    seats_there()
    pod("held", "sleep", "600", seat=1, runtimeClassName=runtime_class)
    (told,) = until(lambda: agent.of("held"))
    until(lambda: running(status, "held"))
    kill(process)
    program()
    until(lambda: running(status, "held"))
    agent.release(told)
    assert [one.pid for one in agent.of("held")] == [told.pid]


def test_a_plugin_that_ends_takes_its_seats_with_it(
    program, device_plugin, until, seats_there, admin, node_name
):
    program()
    process = device_plugin()
    seats_there()
    process.terminate()
    process.wait()
    until(lambda: admin.get(NODES, node_name)["status"]["allocatable"][SEAT] == "0")
    assert admin.get(NODES, node_name)["status"]["capacity"][SEAT] == "4"
    device_plugin()
    seats_there()


def test_pods_that_ended_hold_no_seat(
    program, device_plugin, pod, status, until, seats_there, pod_resources
):
    program()
    device_plugin()
    seats_there()
    pod("over", "true", seat=1, restartPolicy="Never")
    until(lambda: status("over").get("phase") == "Succeeded")
    assert pod_resources() == {}
