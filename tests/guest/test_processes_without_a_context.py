"""
Processes of a workload that have the driver mapped and hold nothing of a card keep nobody from
parking: children that were forked for other work, and those that only loaded a library.
"""

import subprocess
import sys
from dataclasses import replace

from kybernate.model.ids import PodUid, WorkloadKey
from nodeagent.mechanisms import Body

MIB = 2**20
BODY = Body(key=WorkloadKey("team", "model"), uid=PodUid("u-1"), pid=0, gpus=())


def test_a_forked_child_that_uses_no_card_keeps_nobody_from_parking(node):
    with node.program() as told:
        at = told.alloc(3 * MIB)
        told.fill(at, 3 * MIB, 7)
        child = told.fork_idle()
        slot, kept = node.park(told)
        node.resume(told, slot, kept)
        assert told.holds(at, 3 * MIB, 7)
        told.end(child)


def test_a_process_that_only_loads_the_driver_is_no_guest(node):
    script = "import ctypes; ctypes.CDLL('libcuda.so.1'); print('loaded', flush=True); input()"
    environment = {
        **node.environment,
        "LD_PRELOAD": str(node.library),
        "KYB_GUEST_SOCKET": str(node.folder / "g.sock"),
    }
    argv = [sys.executable, "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, env=environment, text=True, **pipes) as loaded:
        assert loaded.stdout.readline() == "loaded\n"
        body = replace(BODY, pid=loaded.pid)
        assert node.mechanism.parts(body) == ()
        loaded.kill()
