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
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from kybernate.api import names
from kybernate.model.ids import WorkloadKey
from kybernate.testing.agentnode import wait_for
from testbed import assets, fakecuda
from testbed.assets import native
from testbed.node import images

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

MIB = 2**20
PROGRAM = Path(__file__).with_name("cuda_program.py")
CARD_MIB, SIZE_MIB = 384, 224  # two do not fit
PATIENCE_S = 90.0
LOADER = "/lib/ld-musl-x86_64.so.1"
MUSL_IMAGE = "kyb.test/musl:1"
MUSL_PROGRAM = """
extern long write(int, const void *, unsigned long);
extern void _Exit(int);
void _start(void) { write(1, "runs\\n", 5); _Exit(0); }
"""
A, B = WorkloadKey("default", "model-a"), WorkloadKey("default", "model-b")


@pytest.fixture(scope="module")
def cards(seat_node):
    """The session's node with a fake card under a real agent; as before when it is over."""
    folder, library, socket = seat_node.folder, seat_node.folder / "lib", "guest/agent.sock"
    library.mkdir()
    for file in (native.guest(), fakecuda.build() / fakecuda.LIBRARY, PROGRAM):
        shutil.copy(file, library / file.name)
    (library / "ld.so.preload").write_text(f"{names.GUEST_LIBRARY}\n")
    uuid = UUID(fakecuda.UUID.removeprefix("GPU-")).bytes
    (folder / "card").write_bytes(struct.pack("<QQ8x16s", CARD_MIB * MIB, 0, uuid))
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
        "command": ["python3", str(program), str(file), str(SIZE_MIB - 24)],
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


def switch(node, goes, comes):
    """Park one and resume the other; the parked one does not go on meanwhile."""
    with node.agent() as agent:
        assert agent.park(goes, within=60.0).ok
        stood = told(node, goes.name)["rounds"]
        assert agent.activate(comes, within=60.0).ok
    goes_on(node, comes.name)
    assert told(node, goes.name) == {"rounds": stood, "wrong": 0}
    assert used_mib(node) < 1.5 * SIZE_MIB


def upgrade(node):
    """A new library and a new agent, as an upgrade brings them: running programs keep theirs."""
    library = node.folder / "lib" / native.GUEST
    newer = library.with_suffix(".newer")
    newer.write_bytes(library.read_bytes() + b"newer")
    node.kill_agent()
    newer.replace(library)
    node.start_agent()


def test_two_programs_that_know_nothing_of_it_take_turns_with_all_their_memory(guests):
    run_program(guests, A.name)
    guests.await_state(A.name, "Active")
    goes_on(guests, A.name)
    run_program(guests, B.name)
    guests.await_state(B.name, "Waiting")
    assert used_mib(guests) >= SIZE_MIB - 24
    switch(guests, goes=A, comes=B)
    upgrade(guests)
    switch(guests, goes=B, comes=A)
    switch(guests, goes=A, comes=B)
    assert (guests.restarts(A.name), guests.restarts(B.name)) == (0, 0)
    assert guests.kubectl("logs", A.name) == guests.kubectl("logs", B.name) == ""


@pytest.fixture(scope="module")
def other_images(cards, tmp_path_factory):
    """An image whose libc is musl."""
    folder = tmp_path_factory.mktemp("musl")
    musl = assets.ensure(("musl",))["musl"]
    (folder / "libc.so").symlink_to(musl)
    (folder / "runs.c").write_text(MUSL_PROGRAM)
    flags = ["-nostdlib", "-fno-stack-protector", "-fPIE", "-pie", f"-Wl,-dynamic-linker={LOADER}"]
    argv = ["cc", *flags, "-o", "runs", "runs.c", "-L.", "-lc"]
    subprocess.run(argv, cwd=folder, check=True)
    tree = {LOADER: musl, "/bin/runs": folder / "runs"}
    cards.node.import_image(MUSL_IMAGE, images.Image(tree=tree, entrypoint=["/bin/runs"]))


@pytest.mark.parametrize(
    ("image", "command"),
    [
        pytest.param(MUSL_IMAGE, ["/bin/runs"], id="musl"),
        pytest.param("kyb.test/box:1", ["/bin/echo", "runs"], id="static"),
        pytest.param("kyb.test/models:1", ["python3", "-c", "print('runs')"], id="without-cuda"),
    ],
)
def test_programs_that_have_no_use_for_the_library_run_as_without_it(
    guests, other_images, image, command
):
    body = guests.body("plain", vram="1Mi", restartPolicy="Never")
    body["spec"]["containers"][0] |= {"image": image, "command": command}
    wait_for(lambda: admitted(guests, body), "the kubelet takes it", PATIENCE_S)
    wait_for(lambda: guests.phase("plain") == "Succeeded", "it has run", PATIENCE_S)
    assert guests.kubectl("logs", "plain") == "runs\n"


def group_health(node):
    """As its GpuNode has it."""
    found = json.loads(node.kubectl("get", "gpunode", node.node.name, "-o", "json"))
    return found["status"]["groups"][0]["health"]


def test_a_program_of_no_pod_on_the_card_makes_its_group_sick_until_it_is_gone(guests):
    wait_for(lambda: group_health(guests) == "Healthy", "it is well", PATIENCE_S)
    file = guests.folder / "stranger.json"
    argv = guests.node.enter([sys.executable, PROGRAM, file, "8"])
    environment = guests.node.environment | guests.more
    guests.node.processes.start("stranger", argv, ready=file.exists, within=60.0, env=environment)
    try:
        wait_for(lambda: group_health(guests) == "Unhealthy", "it is seen", PATIENCE_S)
    finally:
        guests.node.processes.stop("stranger")
    wait_for(lambda: group_health(guests) == "Healthy", "it is well again", PATIENCE_S)
