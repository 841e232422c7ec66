"""A second agent on the same state waits until the first is gone."""

import subprocess
import sys
import threading
from pathlib import Path

from nodeagent.sole import sole

_HOLD = """
import sys, threading
from pathlib import Path
from nodeagent.sole import sole
with sole(Path(sys.argv[1]), threading.Event()) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


def test_the_next_begins_when_the_one_before_was_killed(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"True\n"
    begun = threading.Event()

    def second() -> None:
        with sole(tmp_path, threading.Event()) as alone:
            assert alone
            begun.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert not begun.wait(0.5)
    first.kill()
    assert begun.wait(30.0)
    waiting.join()
    first.communicate()


def test_one_that_is_stopped_while_it_waits_begins_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    with sole(tmp_path, threading.Event()) as first:
        assert first
        stop.set()
        with sole(tmp_path, stop) as second:
            assert not second
