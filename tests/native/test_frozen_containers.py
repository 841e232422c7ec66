"""With the agent away, the kernel says whether a container is frozen. Real: the cgroups."""

import os
import subprocess
from pathlib import Path

import pytest

from kybernate.testing.agentnode import wait_for

MOUNTS = {"v1": ("freezer",), "v2": ("", "unified")}


@pytest.fixture(params=MOUNTS)
def cgroup(request):
    """One of its own, of v1 or v2; skipped, with the reason, where there is none."""
    tops = [Path("/sys/fs/cgroup", name) for name in MOUNTS[request.param]]
    sign = "cgroup.procs" if request.param == "v1" else "cgroup.controllers"
    top = next((one for one in tops if (one / sign).exists() and os.access(one, os.W_OK)), None)
    if top is None:
        pytest.skip(f"no {request.param} freezer that we may write to")
    made = top / f"kyb-test-{os.urandom(8).hex()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    yield made
    wait_for(lambda: removed(made), "it goes")


def test_a_frozen_container_is_told_from_one_that_runs(box, cgroup):
    with subprocess.Popen(["sleep", "600"]) as program:
        (cgroup / "cgroup.procs").write_text(str(program.pid))
        box.environment["INIT"] = str(program.pid)
        box.held()
        box.release()
        box.agent.stop()
        try:
            assert box.call("exec", box.id, "sh").returncode == 0
            turn(cgroup, frozen=True)
            refused = wait_for(lambda: refusal(box), "it stands")
            assert "team/model-0 is parked" in refused
            turn(cgroup, frozen=False)
            assert box.call("exec", box.id, "sh").returncode == 0
        finally:
            turn(cgroup, frozen=False)
            program.kill()


def refusal(box):
    """What exec says when it refuses; empty when it does not."""
    done = box.call("exec", box.id, "sh")
    return done.stderr if done.returncode == 126 else ""


def turn(cgroup, *, frozen):
    if (cgroup / "freezer.state").exists():
        (cgroup / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
    else:
        (cgroup / "cgroup.freeze").write_text("1" if frozen else "0")


def removed(folder):
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
