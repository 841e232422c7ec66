"""Images of real containers, and new pods from them. What is real: see conftest."""

import pytest

from kybernate.testing.agentnode import wait_for

pytestmark = [pytest.mark.controlplane, pytest.mark.node]

PATIENCE_S = 90.0
COUNTER = "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done"


def last(images, name):
    lines = [line for line in images.lines(name) if line.isdecimal()]
    return int(lines[-1]) if lines else -1


def counts_beyond(images, name, number):
    wait_for(lambda: last(images, name) > number, f"{name} counts beyond {number}", PATIENCE_S)


def test_a_counter_goes_on_in_a_new_pod_and_runs_on_in_the_old_one(images):
    images.run("counts", "sh", "-c", COUNTER)
    counts_beyond(images, "counts", 3)
    image = images.dump("counts")
    at = last(images, "counts")
    counts_beyond(images, "counts", at + 3)
    images.wake("goes-on", image, "sh", "-c", COUNTER)
    first = wait_for(lambda: images.lines("goes-on"), "it says something", PATIENCE_S)[0]
    assert 0 < int(first) <= at + 3
    counts_beyond(images, "goes-on", int(first) + 3)
