"""
Real: the device plugin as a program, gRPC, the kubelet's side as the light node speaks it, the
simulated GPUs. Faked: the node agent's preference. Left out: the API server.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from kybernate.clients.pb import agent_pb2, agent_pb2_grpc
from kybernate.model.gpu import Gpu
from testbed.gpu.service import running
from testbed.lightnode.plugins import Plugins

PROFILES = """
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 2}
  - {name: gpu-2x-seat, resource: kyb.ai/gpu-2x-seat, groupSize: 2, seatsPerGroup: 1}
"""


@pytest.fixture
def until():
    """Look again until it is so, at most 30 s."""

    def wait(look):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
        raise AssertionError("not in 30 s")

    return wait


@pytest.fixture
def work():
    """A short path: a unix socket's has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def gpus(work):
    """Two simulated cards."""
    cards = [Gpu(index=i, uuid=f"GPU-{i}", product="P", memory=2**30) for i in range(2)]
    with running(cards, work / "gpu.sock") as device:
        yield device


@pytest.fixture
def kubelet(work):
    """Starts the kubelet's side; called again, a new one over the old one's folder."""
    made = []

    def start():
        if made:
            made[-1].stop()
        made.append(Plugins(work / "plugins", lambda: None))
        made[-1].start()
        return made[-1]

    yield start
    if made:
        made[-1].stop()


class FakeAgent(agent_pb2_grpc.AgentServicer):
    """Prefers what the test says."""

    def __init__(self):
        self.answer, self.asked = (), []

    def PreferSeats(self, request, call):  # noqa: N802
        self.asked.append(request)
        return agent_pb2.PreferSeatsReply(seats=self.answer)


@pytest.fixture
def agent(work):
    """The node agent's stand-in."""
    made = FakeAgent()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    agent_pb2_grpc.add_AgentServicer_to_server(made, server)
    server.add_insecure_port(f"unix://{work}/agent.sock")
    server.start()
    yield made
    server.stop(None).wait()


@pytest.fixture
def plugin(work):
    """Starts `python -m deviceplugin`."""
    started = []

    def start(*flags, profiles=PROFILES):
        (work / "profiles.yaml").write_text(profiles)
        process = subprocess.Popen(
            [
                sys.executable, "-m", "deviceplugin", "--profiles", work / "profiles.yaml",
                "--inventory", "simulated", "--simulated-gpu", work / "gpu.sock",
                "--plugin-dir", work / "plugins", "--agent-socket", work / "agent.sock",
                "--metrics-listen", "127.0.0.1:0", "--health-every", "1s", *flags,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait()
        process.stderr.close()
