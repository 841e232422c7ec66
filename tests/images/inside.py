"""
Runs in a node, as the agent does: `python inside.py VERB JSON` calls nodeagent.images and prints
what it answered as JSON; what it raises, as {"raised": name, "why": words}.
"""

import json
import os
import sys
from pathlib import Path

from kybernate.runtime.clock import SystemClock
from nodeagent.images import RuncImages, body_of
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroups
from nodeagent.linux.freezer import Freezer

ROOT = Path("/run/containerd/runc/k8s.io")


def body(container_id):
    state = json.loads((ROOT / container_id / "state.json").read_text())
    fifo = ROOT / container_id / "exec.fifo"
    return body_of(container_id, state["init_process_pid"], state["init_process_start"], fifo)


def main(verb, asked):
    freezer = Freezer(SystemClock(), Cgroups())
    images = RuncImages(freezer, plugins=Path(os.environ["KYB_TEST_PLUGINS"]))
    if verb == "restoration":
        return dict(images.restoration(Path(asked["image"]), Path(asked["bundle"])))
    found = body(asked["id"])
    match verb:
        case "dump":
            dumped = images.dump(found, Path(asked["into"]))
            return {"size": dumped.size, "facts": dict(dumped.facts)}
        case "unfit":
            return [[one.command, one.reason.value, one.detail] for one in images.unfit(found)]
        case "freeze":
            freezer.freeze(found.pid, found.container_id)
        case "thaw":
            freezer.thaw(found.pid, found.container_id)
        case "standing":
            return {
                "frozen": freezer.frozen(found.pid, found.container_id),
                "stopped": [pid for pid in processes.tree(found.pid) if processes.is_stopped(pid)],
                "all": list(processes.tree(found.pid)),
            }
        case "woken":
            images.woken(found)
    return {}


if __name__ == "__main__":
    os.umask(0o022)
    try:
        said = main(sys.argv[1], json.loads(sys.argv[2]))
    except Exception as error:
        said = {"raised": type(error).__name__, "why": str(error)}
    print(json.dumps(said))
