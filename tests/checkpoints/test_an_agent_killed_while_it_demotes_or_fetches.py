"""kill -9 at each step of demoting and of fetching: the store shows whole checkpoints or none, so
does the node, and the next try goes on from there.

Real: processes that kill themselves, a store in a folder, a node's store, keys.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts import packs
from kybernate.artifacts.faults import Unusable
from kybernate.runtime.clock import SystemClock
from kybernate.stores.nvme import Nvme
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.objects import Given, Objects
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

pytestmark = pytest.mark.crash

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
MIB = 2**20
WORKS = """
import os, signal, sys
from pathlib import Path
from kybernate.runtime.clock import SystemClock
from kybernate.stores.nvme import Nvme
from nodeagent.checkpoints import store as stores
from nodeagent.checkpoints.objects import Given, Objects
from nodeagent.checkpoints.fetching import Wanted
from nodeagent.checkpoints.signing import Keys

from kybernate.artifacts import packs
packs.FULL = 2**22  # so that some MiB are several packs

root, node, what, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]

def dying(when, number, real, is_it=lambda *given: True):
    left = [number]
    def call(*given, **named):
        hit = is_it(*given)
        left[0] -= hit
        mine = hit and left[0] == 0  # others may come before the answer
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*given, **named)
        if mine and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return call

when, call, number = step.split()
if call in ("keys", "packs", "manifests", "arriving"):
    Nvme.put = dying(when, int(number), Nvme.put, lambda self, key, content: call in key)
elif call == "get":
    Nvme.get = dying(when, int(number), Nvme.get, lambda self, key, *more: "packs" in key)
elif call == "drop":
    Nvme.delete = dying(when, int(number), Nvme.delete, lambda self, key: "arriving" in key)
here = stores.Store(root / node, Keys(root / "keys", root / "wrapping"), 2**40, spare=0)
objects = Objects(
    Given(), here, SystemClock(), store=Nvme(root / "bucket")
)
asked = Wanted(namespace="default", name="llama-0-20261122t101500z")
getattr(objects, what)(asked)
print("done", flush=True)
"""


def killed(folder: Path, node: str, what: str, step: str) -> None:
    argv = [sys.executable, "-c", WORKS, str(folder), node, what, step]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def bucket(tmp_path: Path) -> Nvme:
    return Nvme(tmp_path / "bucket")


@pytest.fixture
def objects_of(
    new_store: Callable[..., Store], bucket: Nvme, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Objects]:
    """As an agent of that node that has just started has them."""
    monkeypatch.setattr(packs, "FULL", 2**22)
    clock = SystemClock()
    return lambda node: Objects(Given(), new_store(node), clock, store=bucket)


@pytest.fixture
def big(objects_of: Callable[[str], Objects], facts: Callable[..., Any]) -> Sealed:
    """On node-a; 12 MiB, which are three packs and the end of one."""
    with objects_of("node-a")._here.draft(NAMESPACE, NAME) as draft:
        for path in ("gpu/0", "gpu/1"):
            body = b"".join(
                path.encode() + bytes([number]) * (2 * MIB - len(path)) for number in range(3)
            )
            draft.write(path, [body])
        draft.write("image/core-1.img", [b"process"])
        made: Sealed = draft.seal(facts(parts=()))
        return made


DEMOTING = ["after keys 1", "before packs 1", "after packs 1", "before manifests 1",
            "after manifests 1"]  # fmt: skip
FETCHING = [
    "before arriving 1", "after arriving 1", "after keys 1", "before get 1", "before get 3",
    "before packs 1", "after packs 1", "before packs 3", "after packs 3", "before manifests 1",
    "after manifests 1", "before drop 1", "after drop 1",
]  # fmt: skip


@pytest.mark.parametrize("step", DEMOTING)
def test_demoting(
    tmp_path: Path, big: Sealed, step: str, objects_of: Callable[[str], Objects], bucket: Nvme
) -> None:
    killed(tmp_path, "node-a", "demote", step)
    asked = Wanted(namespace=NAMESPACE, name=NAME, signature=big.signature)
    if list(bucket.list("manifests")):  # it is whole then
        assert objects_of("node-b").flaw(asked) == ""
    kept = {one.key: one.put_at for one in bucket.list("domains")}
    objects_of("node-a").demote(asked)
    assert objects_of("node-b").flaw(asked) == ""
    now = {one.key: one.put_at for one in bucket.list("domains")}
    assert kept.items() <= now.items()  # what was there was not put again


@pytest.mark.parametrize("step", FETCHING)
def test_fetching(
    tmp_path: Path, big: Sealed, step: str, objects_of: Callable[[str], Objects]
) -> None:
    asked = Wanted(namespace=NAMESPACE, name=NAME, signature=big.signature)
    objects_of("node-a").demote(asked)
    killed(tmp_path, "node-b", "fetch", step)
    objects = objects_of("node-b")
    try:
        found = objects._here.open(NAMESPACE, NAME)
    except Unusable:
        assert objects._here.all() == ()  # nothing is seen
    else:
        assert found.signature == big.signature
    assert objects.fetch(asked) == big
    again = objects_of("node-b")._here
    assert again.open(NAMESPACE, NAME) == big
    assert again.room().used < 1.01 * big.size  # nothing is left of the first try
