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

from nodeagent.checkpoints import layers
from nodeagent.checkpoints.store import Store

pytestmark = pytest.mark.crash

IN_A_STORE = """
import sys
from dataclasses import replace
from pathlib import Path
from kybernate.model.checkpoint import Fingerprint
from kybernate.artifacts.facts import Facts, GpuPart
from nodeagent.checkpoints import layers
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store
made_in = Fingerprint(
    kernel="", architecture="", boot="", image="", command=(), mechanism="simulated"
)
facts = Facts(
    workload="w", pod="p", pod_uid="u", container="c", node="a", sealed_at=1.0, made_in=made_in
)
root = Path(sys.argv[1])
store = Store(root / "node-a", Keys(root / "keys"), 2**40, spare=0)
"""

SEALS = (
    IN_A_STORE
    + """have = {one.manifest.name for one in store.all()}
number = len(have)
while True:
    with store.draft("default", f"c-{number}") as draft:
        (draft.folder / "image").mkdir()
        (draft.folder / "image/pages-1.img").write_bytes(bytes([number % 256]) * 300_000)
        draft.write("gpu/0", [b"x" * 1000] * 300)
        draft.seal(facts)
    print(f"c-{number}", flush=True)
    number += 1
"""
)

SHARES = (
    IN_A_STORE
    + """number = max((int(one.manifest.name[2:]) + 1 for one in store.all()), default=0)
while True:
    pieces = [bytes([n, max(k for k in range(number + 1) if k % 40 == n or k == 0) % 256]) * 2048
              for n in range(40)]
    with store.earlier("default", "w") as found, store.draft("default", f"c-{number}") as draft:
        (draft.folder / "image").mkdir()
        (draft.folder / "image/same").write_bytes(b"the same" * 30_000)
        before = layers.earlier(found) if found is not None else None
        digests = layers.write(draft, "gpu", iter([("gpu/0", iter(pieces))]), before)
        linked = draft.shared
        if found is not None:
            draft.share_equals(found.folder, found.manifest.files)
        part = GpuPart(
            name="p", card=0, size=1, digest=digests["gpu/0"], path="gpu/0", layered=True
        )
        draft.seal(replace(facts, parts=(part,), sealed_at=float(number)), linked)
    print(f"c-{number}", flush=True)
    if number >= 4:
        store.delete("default", f"c-{number - 4}")
    number += 1
"""
)


def test_those_that_share_are_whole_after_a_kill_too_and_what_is_counted_is_there(
    tmp_path: Path, keys: Any, new_store: Callable[..., Store]
) -> None:
    chance, last = random.Random(11), ""
    for _ in range(5):
        argv = [sys.executable, "-c", SHARES, str(tmp_path)]
        running = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        told = [running.stdout.readline().strip()]
        deadline = time.monotonic() + chance.random() * 0.2
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
            found = store.open("default", name)
            (part,) = found.manifest.facts.parts
            assert len(b"".join(layers.read(found, part))) == 40 * 4096
        files = [path for path in (tmp_path / "node-a/sealed").rglob("*") if path.is_file()]
        inodes = {path.stat().st_ino: path.stat().st_size for path in files}
        assert store.room().used == sum(inodes.values())
    assert int(last[2:]) >= 4


def test_what_is_seen_after_a_kill_is_whole(
    tmp_path: Path, keys: Any, new_store: Callable[..., Store]
) -> None:
    chance, told = random.Random(7), []
    for _ in range(4):
        argv = [sys.executable, "-c", SEALS, str(tmp_path)]
        running = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        told.append(running.stdout.readline().strip())
        deadline = time.monotonic() + chance.random() * 0.05
        while time.monotonic() < deadline:
            pass  # any moment will do, so none is waited for
        running.send_signal(signal.SIGKILL)
        told += [line.strip() for line in running.stdout if line.endswith("\n")]
        running.wait(60)
        running.stdout.close()
        store = new_store()
        seen = [one.manifest.name for one in store.all()]
        assert set(told) <= set(seen)
        for name in seen:
            store.open("default", name)
        assert not any((tmp_path / "node-a/drafts").iterdir())
