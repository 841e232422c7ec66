"""
`make demo-multiplex` plays to its end with every answer right, and leaves nothing running.

What is wrong with an answer is in tests/multiplex; here it is real models, agents and an activator.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PLAYED_S = 600.0  # about 120 s on an idle machine
Living = Callable[[Path], dict[int, str]]


def _play(folder: Path, log: Path, *flags: str) -> str:
    argv = [sys.executable, "-m", "testbed.multiplex", "--work", str(folder), *flags]
    with log.open("wb") as out:
        done = subprocess.run(
            argv, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=PLAYED_S,
            env={**os.environ, "COLUMNS": "200"}, check=False,
        )  # fmt: skip
    said = log.read_text()
    assert done.returncode == 0, said
    return said


def test_the_trace_is_answered_and_nothing_runs_on(
    assets: object, short_folder: Path, tmp_path: Path, living: Living
) -> None:
    said = _play(short_folder / "m", tmp_path / "demo.log", "--seconds", "20")
    assert said.rstrip().endswith("demo-multiplex: ok"), said
    assert "lost, mixed up, damaged or out of order │ 0" in said
    assert living(short_folder / "m") == {}


def test_shuffled_requests_of_clients_that_ask_ahead_are_answered_in_order(
    assets: object, short_folder: Path, tmp_path: Path
) -> None:
    flags = ("--models=8", "--vram=2Gi", "--requests=120", "--clients=12", "--ahead=4", "--turn=0")
    said = _play(short_folder / "ahead", tmp_path / "demo.log", *flags)
    assert "lost, mixed up, damaged or out of order │ 0" in said
