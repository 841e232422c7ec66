"""kill -9 at each step of a deletion: the checkpoint is whole under its name, or gone, and what it
shares with another stays."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

pytestmark = pytest.mark.crash

DELETES = """
import os, signal, sys
from pathlib import Path
from kybernate.stores.nvme import Nvme
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

root, name, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
store = Store(root / "node-a", Keys(root / "keys", root / "wrapping"), 2**40, spare=0)
when, _, what = step.partition(" ")
real = Nvme.delete

def delete(self, key):
    if what in key and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = real(self, key)
    if what in key and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

if step != "never":
    Nvme.delete = delete
store.delete("default", name)
print("deleted", flush=True)
"""
STEPS = [f"{when} {what}" for what in ("manifests", "packs") for when in ("before", "after")]


@pytest.mark.parametrize("step", [*STEPS, "never"])
def test_after_a_kill_it_is_whole_or_gone(
    tmp_path: Path,
    new_store: Callable[..., Store],
    seal: Callable[..., Sealed],
    step: str,
) -> None:
    store = new_store()
    kept = seal(store, "kept")
    alone = store.room().used
    with store.draft("default", "going") as draft:
        draft.write("gpu/0", kept.read("gpu/0"))
        draft.write("image/own", [b"its own" * 1000])
        draft.seal(kept.manifest.facts)
    both = store.room().used
    argv = [sys.executable, "-c", DELETES, str(tmp_path), "going", step]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == (0 if step == "never" else -signal.SIGKILL), ended.stderr
    again = new_store()
    there = _is_whole(again, "going")
    assert there is (step == "before manifests")
    assert again.room().used == (both if there else alone)
    again.open("default", "kept")
    if there:
        assert again.delete("default", "going")
    assert not _is_whole(again, "going")
    assert again.delete("default", "kept")
    assert again.room().used == 0
    assert not list((tmp_path / "node-a/domains").glob("*/packs/*/*"))


def _is_whole(store: Store, name: str) -> bool:
    if name in {one.manifest.name for one in store.all()}:
        store.open("default", name)
        return True
    with pytest.raises(Unusable) as absent:
        store.open("default", name)
    return absent.value.reason is not Flaw.ABSENT
