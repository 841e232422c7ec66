"""
A workload of a real node is sealed and woken because somebody asked the API server for it.

Real: as conftest says, with CRIU; the controller's own parts in this process, `kyb` as it is typed.
Not there: the webhook and the scheduler, so pods name their node; the agent is asked over the
socket of its node.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from typer.testing import CliRunner

from controller.checkpointing import Checkpointing
from controller.claims import Claims
from controller.restoring import Restoring
from controller.workloads import Workloads
from kyb.__main__ import app
from kybernate.api import restorerequests
from kybernate.api.restorerequests import Template
from kybernate.clients.agents import Agent, Sealing
from kybernate.clients.kube import Kube
from kybernate.clients.resources import GPUCHECKPOINTS, GPUWORKLOADS, RESTOREREQUESTS
from kybernate.runtime.clock import SystemClock
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

PATIENCE_S = 120.0


class OverItsSocket:
    """A `Sealer` of the one node there is."""

    def __init__(self, socket):
        self._socket = socket

    def seal(self, asked):
        wanted = Sealing(
            name=asked.checkpoint,
            leave_parked=asked.parked,
            idempotency_key=asked.idempotency_key,
        )
        with Agent.on_node(self._socket) as agent:
            yield from agent.sealing(asked.workload, wanted, asked.within, asked.pod_uid)


@contextmanager
def running(part) -> Iterator[None]:
    for watch in part.watches:
        watch.start()
    assert all(watch.wait_synced(60) for watch in part.watches)
    part.duty.start()
    yield
    part.duty.stop()
    for watch in part.watches:
        watch.stop()


@pytest.fixture
def cluster(seats):
    """The API server, with the parts of a controller that this is about."""
    kube, clock = Kube.from_kubeconfig(seats.plane.admin_kubeconfig), SystemClock()
    workloads, claims = Workloads(kube, clock), Claims(kube, clock)
    workloads.on_gone = claims.pod_gone
    sealer = OverItsSocket(seats.agent_socket)
    requests = (Checkpointing(kube, clock, sealer), Restoring(kube, clock, workloads.living))
    with ExitStack() as entered:
        for part in (workloads, claims, *requests):
            entered.enter_context(running(part))
        yield kube
    kube.close()


def test_what_kyb_had_sealed_wakes_on_request_and_counts_on(seats, cluster):
    body = seats.body("asked", "serve", "--vram=1Gi", "--address=0.0.0.0", vram="1Gi")
    body["spec"]["hostPID"] = False
    seats.create(body)
    seats.await_state("asked", "Active")
    assert seats.predict("asked")["counter"] == 1
    known = {"KUBECONFIG": str(seats.plane.admin_kubeconfig), "COLUMNS": "200"}
    wait_for(lambda: found(cluster, GPUWORKLOADS, "asked"), "it is known", PATIENCE_S)
    words = ["checkpoint", "asked", "-n", "default", "--name=kept", "--leave=parked", "--wait"]
    said = CliRunner().invoke(app, words, env=known)
    assert said.exit_code == 0, said.output
    assert "kept: sealed in " in said.output
    assert seats.state("asked") == "Parked"
    wait_for(lambda: found(cluster, GPUCHECKPOINTS, "kept"), "it is published", PATIENCE_S)
    seats.plane.kubectl("delete", "pod", "asked", "--wait=true", "--grace-period=1")

    template = {"metadata": {"annotations": body["metadata"]["annotations"]}, "spec": body["spec"]}
    wanted = restorerequests.new_object(
        "default", "kept", Template(name="again", template=template)
    )
    seats.made.append("pod/again")
    name = cluster.create(RESTOREREQUESTS, wanted)["metadata"]["name"]
    ended = wait_for(lambda: finished(cluster, name), "the request has ended", PATIENCE_S)
    assert (ended["state"], ended["pod"]) == ("Succeeded", "again"), ended
    answer = seats.predict("again")
    assert (answer["counter"], answer["intact"]) == (2, True)

    seats.plane.kubectl("delete", "pod", "again", "--wait=true", "--force", "--grace-period=0")
    wait_for(lambda: "claim" not in found(cluster, GPUCHECKPOINTS, "kept"), "freed", PATIENCE_S)


def found(kube, resource, name):
    """Its status, or its spec before it has one."""
    here = [one for one in kube.list(resource, "default") if one["metadata"]["name"] == name]
    return (here[0].get("status") or here[0]["spec"]) if here else None


def finished(kube, name):
    status = found(kube, RESTOREREQUESTS, name)
    return status if status.get("finishedAt") else None
