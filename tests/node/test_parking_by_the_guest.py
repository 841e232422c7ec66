"""
Unmodified CUDA programs in pods take turns: preloaded by their seats, parked by the guest library.

Real: all of a node (conftest), the agent with the mechanism `guest`, its workers, NVML's client,
the device plugin's mounts. Faked: the driver and the card (testbed/fakecuda), for the programs, the
workers and NVML alike. Observed: what the programs find in their memory, and what the card has in
use.
"""

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kybernate.api import names
from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for
from testbed import fakecuda
from testbed.assets import native

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

MIB = 2**20
PROGRAM = Path(__file__).with_name("cuda_program.py")
SIZE_MIB = 640  # of a card of 1024: two do not fit
PATIENCE_S = 90.0
A, B = WorkloadKey("default", "model-a"), WorkloadKey("default", "model-b")


@pytest.fixture(scope="module")
def cards(seat_node):
    """The session's node with a fake card under a real agent; as before when it is over."""
    folder, library, socket = seat_node.folder, seat_node.folder / "lib", "guest/agent.sock"
    library.mkdir()
    for file in (native.guest(), fakecuda.build() / fakecuda.LIBRARY, PROGRAM):
        shutil.copy(file, library / file.name)
    (library / "ld.so.preload").write_text(f"{names.GUEST_LIBRARY}\n")
    flags = (f"--guest-socket={folder / socket}",)
    made = replace(
        seat_node,
        made=[],
        inventory=("--inventory=nvml",),
        flags={
            "agent": flags,
            "deviceplugin": (*flags, f"--guest-library={library / native.GUEST}"),
        },
        more={
            "LD_LIBRARY_PATH": f"{fakecuda.build()}:{fakecuda.build_nvml()}",
            "KYB_FAKE_CARD": str(folder / "card"),
        },
        state_folder="state-guest",
    )
    seat_node.node.processes.stop("deviceplugin")
    seat_node.kill_agent()
    made.start_agent()
    made.start_plugin()
    yield made
    made.node.processes.stop("deviceplugin")
    made.kill_agent()
    seat_node.start_agent()
    seat_node.start_plugin()


@pytest.fixture
def guests(cards):
    yield cards
    cards.forget()


def used_mib(node):
    return struct.unpack("<QQ", (node.folder / "card").read_bytes()[:16])[1] // MIB


def told(node, name):
    """What the program in a pod says of itself; nothing before its first round."""
    file = node.folder / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {"rounds": 0, "wrong": 0}


def run_program(node, name, **container):
    """A pod with an ordinary CUDA image: the driver's library where its loader looks."""
    (node.folder / f"{name}.json").unlink(missing_ok=True)
    body = node.body(name, vram=f"{SIZE_MIB}Mi", restartPolicy="Never")
    file, program = node.folder / f"{name}.json", node.folder / "lib" / PROGRAM.name
    body["spec"]["containers"][0] |= {
        "command": ["python3", str(program), str(file), str(SIZE_MIB - 40)],
        "env": [
            {"name": "LD_LIBRARY_PATH", "value": str(node.folder / "lib")},
            {"name": "KYB_FAKE_CARD", "value": str(node.folder / "card")},
        ],
        **container,
    }
    wait_for(lambda: admitted(node, body), f"the kubelet takes {name}", PATIENCE_S)
    wait_for(lambda: node.phase(name) == "Running", f"{name} runs", PATIENCE_S)


def admitted(node, body):
    """Whether the kubelet takes the pod: it refuses for good while it meets a new device plugin."""
    name = body["metadata"]["name"]
    node.admit(body)
    seen = wait_for(lambda: node.pod(name)["status"].get("startTime"), "it is seen", PATIENCE_S)
    refused = seen and node.pod(name)["status"].get("reason") == "UnexpectedAdmissionError"
    if refused:
        node.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=true")
    return not refused


def goes_on(node, name, rounds=3):
    """It works some rounds more, and all it found is right."""
    before = told(node, name)["rounds"]
    wait_for(lambda: told(node, name)["rounds"] >= before + rounds, f"{name} works", PATIENCE_S)
    assert told(node, name)["wrong"] == 0


def test_two_programs_that_know_nothing_of_it_take_turns_with_all_their_memory(guests):
    run_program(guests, A.name)
    guests.await_state(A.name, "Active")
    goes_on(guests, A.name)
    run_program(guests, B.name)
    guests.await_state(B.name, "Waiting")
    assert used_mib(guests) >= SIZE_MIB - 40
    with guests.agent() as agent:
        for goes, comes in ((A, B), (B, A), (A, B)):
            assert agent.park(goes, within=60.0).ok
            stood = told(guests, goes.name)["rounds"]
            assert agent.activate(comes, within=60.0).ok
            goes_on(guests, comes.name)
            assert told(guests, goes.name) == {"rounds": stood, "wrong": 0}
            assert used_mib(guests) < 1.5 * SIZE_MIB
    assert (guests.restarts(A.name), guests.restarts(B.name)) == (0, 0)
    assert guests.kubectl("logs", A.name) == guests.kubectl("logs", B.name) == ""
