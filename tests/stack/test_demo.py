"""
The demo plays to its end, and leaves nothing running: not when it ends, is interrupted or killed.

Seen by the working directories and command lines of all processes, not by our own records.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.stack import realnodes

pytestmark = [pytest.mark.controlplane, pytest.mark.crash, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
SILENT_S = 180.0  # it plays for 130 s on an idle machine, and for many minutes on a busy one
LOOK_S = 0.5
MODEL = "testbed.models serve"
Living = Callable[[Path], dict[int, str]]
Eventually = Callable[..., object]


def _demo(folder: Path, log: Path, *options: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            # Started in the background of a shell, tests inherit that SIGINT is ignored.
            ["env", "--default-signal=INT", sys.executable, "-m", "testbed.demo",
             "--work", str(folder), *options],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip


def test_it_plays_to_the_end_and_leaves_nothing_running(
    assets: object, short_folder: Path, tmp_path: Path, living: Living
) -> None:
    work, log = short_folder / "d", tmp_path / "demo.log"
    with _demo(work, log) as demo:
        code = _end_of(demo, log)
    said = log.read_text()
    assert code == 0, said
    assert said.rstrip().endswith("demo: ok"), said
    assert living(work) == {}
    assert "$ kubectl get gpunodes,gpuworkloads" in said
    problem = realnodes.why_not()
    assert (problem or "the node is a real one: kubelet, containerd, runc") in said


def _end_of(demo: subprocess.Popen[bytes], log: Path) -> int | None:
    """Its exit code; None where it said nothing for SILENT_S, and was killed."""
    _while_it_tells(demo, log, lambda: demo.poll() is not None)
    return demo.poll()


def _await_models(demo: subprocess.Popen[bytes], log: Path, work: Path, living: Living) -> None:
    _while_it_tells(
        demo,
        log,
        lambda: demo.poll() is not None or any(MODEL in one for one in living(work).values()),
    )
    assert demo.poll() is None, log.read_text()


def _while_it_tells(demo: subprocess.Popen[bytes], log: Path, done: Callable[[], bool]) -> None:
    """Look until it is done; kill it when it is not, and has said nothing for SILENT_S."""
    said, since = -1, time.monotonic()
    while not done():
        if said != (now := log.stat().st_size):
            said, since = now, time.monotonic()
        if time.monotonic() - since > SILENT_S:
            demo.kill()
            demo.wait()
            return
        with suppress(subprocess.TimeoutExpired):
            demo.wait(LOOK_S)


def test_killed_in_the_middle_it_leaves_nothing_running(
    assets: object, short_folder: Path, tmp_path: Path, living: Living, eventually: Eventually
) -> None:
    work, log = short_folder / "k", tmp_path / "demo.log"
    with _demo(work, log) as demo:
        _await_models(demo, log, work, living)
        demo.kill()
        demo.wait()
    # The watchdog asks first and insists ten seconds later, one process after the other.
    eventually(lambda: not living(work), within=60.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_what_it_started_and_says_where_the_logs_are(
    assets: object, short_folder: Path, tmp_path: Path, living: Living, number: signal.Signals
) -> None:
    work, log = short_folder / number.name, tmp_path / "demo.log"
    with _demo(work, log, "--light") as demo:
        _await_models(demo, log, work, living)
        demo.send_signal(number)
        assert demo.wait(SILENT_S) == 130
    assert living(work) == {}
    said = log.read_text()
    assert said.rstrip().endswith(
        f"demo: interrupted; all it started has ended. Logs are in {work}"
    ), said
    assert "Traceback" not in said
