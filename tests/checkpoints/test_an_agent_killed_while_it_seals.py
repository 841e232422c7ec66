"""kill -9 at any moment leaves checkpoints that are whole, and nothing else that is seen."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodeagent.checkpoints.store import Store

pytestmark = pytest.mark.crash

IN_A_STORE = """
import os, signal, sys, threading
from dataclasses import replace
from pathlib import Path
from kybernate.artifacts import packs
from kybernate.model.checkpoint import Fingerprint
from kybernate.artifacts.facts import Facts, GpuPart
from kybernate.stores.nvme import Nvme
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store
packs.FULL = 40_000  # several packs for each
made_in = Fingerprint(
    kernel="", architecture="", boot="", image="", command=(), mechanism="simulated"
)
facts = Facts(
    workload="w", pod="p", pod_uid="u", container="c", node="a", sealed_at=1.0, made_in=made_in
)
root = Path(sys.argv[1])
"""
OPENS = """
store = Store(root / "node-a", Keys(root / "keys", root / "wrapping"), 2**40, spare=0)
"""

SHARES = (
    IN_A_STORE
    + OPENS
    + """number = max((int(one.manifest.name[2:]) + 1 for one in store.all()), default=0)
while True:
    pieces = [bytes([n, max(k for k in range(number + 1) if k % 40 == n or k == 0) % 256]) * 2048
              for n in range(40)]
    with store.draft("default", f"c-{number}") as draft:
        (draft.folder / "image").mkdir()
        (draft.folder / "image/same").write_bytes(b"the same" * 30_000)
        draft.write("gpu/0", pieces)
        draft.seal(replace(facts, sealed_at=float(number)))
    print(f"c-{number}", flush=True)
    if number >= 4:
        store.delete("default", f"c-{number - 4}")
    number += 1
"""
)

AT_A_STEP = (
    IN_A_STORE
    + """
what, which, when = sys.argv[2:]
left, lock = int(which), threading.Lock()
real = Nvme.put

def put(self, key, content):
    global left
    with lock:
        left -= what in key
        mine = what in key and not left
    if mine and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, key, content)
    if mine and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)

Nvme.put = put
"""
    + OPENS
    + """
with store.draft("default", "second") as draft:
    (draft.folder / "image").mkdir()
    (draft.folder / "image/pages").write_bytes(os.urandom(30_000))
    draft.write("gpu/0", [os.urandom(30_000) for _ in range(3)])
    draft.seal(facts)
"""
)


def _is_as_counted(store: Store, folder: Path) -> None:
    """What is held is what is there, and nothing is there that nobody has."""
    packs = [path for path in (folder / "domains").rglob("*") if path.suffix == ""]
    sizes = [path.stat().st_size for path in packs if path.is_file()]
    named = {key for one in store.all() for key in one.manifest.pack_keys}
    assert len(sizes) == len(named)
    manifests = [p.stat().st_size for p in (folder / "manifests").rglob("*") if p.is_file()]
    assert store.room().used == sum(sizes) + sum(manifests)
    assert list((folder / "plain").iterdir()) == []


def test_those_that_share_are_whole_after_a_kill_too_and_what_is_counted_is_there(
    tmp_path: Path, keys: Any, new_store: Callable[..., Store]
) -> None:
    chance, last = random.Random(11), ""
    for _ in range(5):
        argv = [sys.executable, "-c", SHARES, str(tmp_path)]
        running = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        told = [running.stdout.readline().strip()]
        deadline = time.monotonic() + chance.random() * 0.4
        while time.monotonic() < deadline:
            pass  # any moment will do, so none is waited for
        running.send_signal(signal.SIGKILL)
        told += [line.strip() for line in running.stdout if line.endswith("\n")]
        running.wait(60)
        running.stdout.close()
        store = new_store()
        last = told[-1]
        seen = {one.manifest.name: one for one in store.all()}
        assert last in seen
        for name in seen:
            assert len(b"".join(store.open("default", name).read("gpu/0"))) == 40 * 4096
        _is_as_counted(store, tmp_path / "node-a")
    assert int(last[2:]) >= 4


STEPS = [
    *((what, which, when) for what, which in (("keys", 1), ("packs", 1), ("packs", 3))
      for when in ("before", "after")),
    ("intents", 1, "before"), ("intents", 1, "after"),
    ("manifests/", 1, "before"), ("manifests/", 1, "after"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "which", "when"), STEPS)
def test_killed_at_a_step_it_is_there_or_never_was(
    tmp_path: Path, keys: Any, new_store: Callable[..., Store], seal: Any, what: str, which: int,
    when: str,
) -> None:  # fmt: skip
    if what != "keys":  # then the domain has one
        seal(new_store(), "first")
    argv = [sys.executable, "-c", AT_A_STEP, str(tmp_path), what, str(which), when]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    store = new_store()
    there = {one.manifest.name for one in store.all()} - {"first"}
    assert there == ({"second"} if (what, when) == ("manifests/", "after") else set())
    for one in store.all():
        store.open("default", one.manifest.name)
    _is_as_counted(store, tmp_path / "node-a")
    if not there:
        seal(store, "second")
        store.open("default", "second")
