"""
torch's own store on the loopback (`TCPStore`) goes on in a new pod. What is real: see conftest.

Real beside: torch, in two processes as ranks are, one of them in the middle of a call. CI has no
torch: there the connections of program.py stand for these, and this is skipped. `KYB_TORCH` names a
folder with `python/`, torch's packages, and `lib/`, what they are linked to: those of Debian's
`python3-torch`, unpacked, do.
"""

import os
from pathlib import Path

import pytest

from kybernate.testing.agentnode import wait_for

pytestmark = [
    pytest.mark.controlplane,
    pytest.mark.node,
    pytest.mark.skipif("KYB_TORCH" not in os.environ, reason="KYB_TORCH names no folder of torch"),
]

PATIENCE_S = 90.0
RANKS = ("python3", "-c", (Path(__file__).parent / "ranks.py").read_text())


def with_torch():
    """What a pod needs that runs them."""
    found = {"PYTHONPATH": "/torch/python", "LD_LIBRARY_PATH": "/torch/lib"}
    container = {
        "env": [{"name": name, "value": value} for name, value in found.items()],
        "volumeMounts": [{"name": "torch", "mountPath": "/torch", "readOnly": True}],
    }
    folder = {"name": "torch", "hostPath": {"path": os.environ["KYB_TORCH"]}}
    return {"container": container, "volumes": [folder]}


def last(images, name):
    return max((int(line) for line in images.lines(name) if line.isdecimal()), default=-1)


def test_ranks_that_meet_at_torchs_store_go_on_with_their_connections(images):
    images.run("ranks", *RANKS, **with_torch())
    wait_for(lambda: last(images, "ranks") > 10, "they count", PATIENCE_S)
    assert images.ask("unfit", id=images.container("ranks")) == []
    before = last(images, "ranks")
    image = images.dump("ranks")
    after = last(images, "ranks")
    wait_for(lambda: last(images, "ranks") > after + 10, "they go on after the dump", PATIENCE_S)
    images.delete("ranks")
    images.wake("woken", image, *RANKS, **with_torch())
    wait_for(
        lambda: f"heard {2**20}" in images.lines("woken"), "who waited is answered", PATIENCE_S
    )
    wait_for(lambda: last(images, "woken") > after + 10, "they count on", PATIENCE_S)
    assert int(images.lines("woken")[0]) >= before  # those who counted before, not new ones
