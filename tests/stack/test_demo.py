"""
The demo plays to its end, and leaves nothing running: neither when it ends nor when it is killed.

Seen by the working directories and command lines of all processes, not by our own records.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.controlplane, pytest.mark.crash, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PLAYED_S = 400.0  # about 130 s on an idle machine
MODEL = "testbed.models serve"
Living = Callable[[Path], dict[int, str]]


def _demo(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "testbed.demo", "--work", str(folder)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200"},
        )


def test_it_plays_to_the_end_and_leaves_nothing_running(
    assets: object, short_folder: Path, tmp_path: Path, living: Living
) -> None:
    work, log = short_folder / "d", tmp_path / "demo.log"
    with _demo(work, log) as demo:
        code = demo.wait(PLAYED_S)
    said = log.read_text()
    assert code == 0, said
    assert said.rstrip().endswith("demo: ok"), said
    assert living(work) == {}
    assert "$ kubectl get gpunodes,gpuworkloads" in said


def test_killed_in_the_middle_it_leaves_nothing_running(
    assets: object,
    short_folder: Path,
    tmp_path: Path,
    living: Living,
    eventually: Callable[..., object],
) -> None:
    work, log = short_folder / "k", tmp_path / "demo.log"
    with _demo(work, log) as demo:
        eventually(
            lambda: demo.poll() is not None or any(MODEL in one for one in living(work).values()),
            within=120.0,
        )
        assert demo.poll() is None, log.read_text()
        demo.kill()
        demo.wait()
    # The watchdog asks first and insists ten seconds later, one process after the other.
    eventually(lambda: not living(work), within=60.0)
