"""kill -9 at each step of a deletion: the checkpoint is whole under its name, or gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store

pytestmark = pytest.mark.crash

DELETES = """
import os, shutil, signal, sys
from pathlib import Path
from nodeagent.checkpoints import store as stores
from nodeagent.checkpoints.signing import Keys

root, name, step = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
store = stores.Store(root / "node-a", Keys(root / "keys"), 2**40, spare=0)

def dying(when, real):
    def call(*given, **named):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*given, **named)
        if when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return call

when, _, what = step.partition(" ")
if what == "rename":
    Path.rename = dying(when, Path.rename)
elif what == "sync":
    stores.sync_folder = dying(when, stores.sync_folder)
elif what == "remove":
    shutil.rmtree = dying(when, shutil.rmtree)
elif what == "unlink":
    os.unlink = dying(when, os.unlink)
store.delete("default", name)
print("deleted", flush=True)
"""
STEPS = [
    f"{when} {what}"
    for what in ("rename", "sync", "remove", "unlink")
    for when in ("before", "after")
]


@pytest.mark.parametrize("step", [*STEPS, "never"])
def test_after_a_kill_it_is_whole_or_gone(
    tmp_path: Path,
    new_store: Callable[..., Store],
    seal: Callable[..., Sealed],
    step: str,
) -> None:
    store = new_store()
    sealed = seal(store)
    name = sealed.manifest.name
    argv = [sys.executable, "-c", DELETES, str(tmp_path), name, step]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == (0 if step == "never" else -signal.SIGKILL), ended.stderr
    again = new_store()
    there = _is_whole(again, name)
    assert there is (step == "before rename")
    assert again.room().used == (sum(_sizes(tmp_path / "node-a/sealed")) if there else 0)
    assert not any((tmp_path / "node-a/drafts").iterdir())
    if there:
        assert again.delete("default", name)
    assert not _is_whole(again, name)


def _is_whole(store: Store, name: str) -> bool:
    if (store.folder("default", name)).parent.exists():
        store.open("default", name)
        return True
    with pytest.raises(Unusable) as absent:
        store.open("default", name)
    return absent.value.reason is not Flaw.ABSENT


def _sizes(folder: Path) -> list[Any]:
    return [os.stat(path).st_size for path in folder.rglob("*") if path.is_file()]  # noqa: PTH116
