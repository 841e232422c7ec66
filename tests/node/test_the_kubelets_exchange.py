"""
What a real kubelet says to a device plugin: registration, a pod's seat, a restart that wipes every
socket, registration again, the next pod's seat.

Kept as a golden file, with KYB_RECORD=1 written anew; tests/deviceplugin hold the light node to it.
"""

import os
import sys
from pathlib import Path

import pytest

from kybernate.testing import exchanges
from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
PLUGIN = REPOSITORY / "tests" / "deviceplugin"
GOLDEN = PLUGIN / "golden" / "exchange.jsonl"
RESOURCE = "kyb.ai/gpu-1x-seat"


@pytest.fixture
def recorded(seats):
    """A plugin in the place of the node's, its exchange written down; the file."""
    file = seats.folder / "exchange.jsonl"
    file.unlink(missing_ok=True)
    seats.node.processes.stop("deviceplugin")
    flags = [
        f"--profiles={PLUGIN / 'golden' / 'profiles.yaml'}", "--inventory=listed",
        f"--agent-socket={seats.folder / 'nobody.sock'}", "--metrics-listen=127.0.0.1:0",
    ]  # fmt: skip
    argv = seats.node.enter([sys.executable, PLUGIN / "recorder.py", file, *flags])
    seats.node.processes.start(
        "recorder", argv, ready=lambda: there(seats) == "2", within=60.0, env=seats.node.environment
    )
    yield file
    seats.node.processes.stop("recorder")
    seats.forget()
    seats.start_plugin()


def test_a_real_kubelets_exchange_is_as_it_was_kept(seats, recorded):
    seats.run_plain("first")
    seats.node.stop_kubelet()
    seats.node.start_kubelet()
    wait_for(lambda: recorded.read_text().count('"Register"') == 2, "registered again", 60.0)
    wait_for(lambda: there(seats) == "2", "its seats are there", 60.0)
    seats.run_plain("second")
    if os.environ.get("KYB_RECORD"):
        GOLDEN.write_text(exchanges.text(recorded.read_text()))
    assert exchanges.text(recorded.read_text()) == GOLDEN.read_text()


def there(seats):
    """Seats, by the API server's word."""
    node = seats.plane.api.get(f"/api/v1/nodes/{seats.node.name}")
    return node["status"]["allocatable"].get(RESOURCE)
