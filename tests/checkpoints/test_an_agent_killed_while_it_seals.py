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

SEALS = """
import sys
from pathlib import Path
from kybernate.model.checkpoint import Fingerprint
from kybernate.artifacts.facts import Facts
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
have = {one.manifest.name for one in store.all()}
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
