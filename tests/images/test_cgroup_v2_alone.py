"""
Containers where cgroup v2 is all there is: frozen, dumped, restored in another cgroup, counting on.

Real: runc, CRIU, kybernate-runc, the freezer, on this machine's cgroups. Where v1 is mounted too it
cannot be had: processes stay in v1's cgroups though nobody sees them, and CRIU restores those.
Observed: what the benchmark of images reports, which goes all of that way.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.assets import native
from testbed.node import cgroups, machine, programs

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unified() -> cgroups.Hierarchy:
    """The only hierarchy."""
    problem = machine.why_no_containers() or programs.why_not() or native.why_not()
    there = cgroups.here()
    if problem or len(there) != 1 or not there[0].unified:
        pytest.skip(problem or "cgroup v2 is not all that is mounted here")
    return there[0]


def test_a_container_goes_on_in_its_own_cgroup_and_is_frozen_there(
    unified: cgroups.Hierarchy,
) -> None:
    program = [sys.executable, "-m", "benchmarks.images", "--mebibytes=16", "--rounds=1"]
    done = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["freezer"] == "cgroup v2"
    assert not list(unified.mount.glob("kyb-bench-*-ours-*"))
