"""`kyb top` at a terminal: it goes on by itself, says when nobody answers, and ends by Ctrl-C."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kybernate.testing.builders import a_gpunode
from kybernate.testing.fakehttp import FakeHttp
from kybernate.testing.fakekube import FakeKube

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0  # two busy cores


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, environment: dict[str, str], *argv: str) -> None:
        self._end, theirs = pty.openpty()
        self._program = subprocess.Popen(
            # Started in the background of a shell, tests inherit that SIGINT is ignored.
            ["env", "--default-signal=INT", *argv],
            env=environment,
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._shown = b""

    def await_text(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self._shown:
            assert time.monotonic() < deadline, self._shown[-2000:]
            self._read()

    def interrupt(self) -> int:
        """As Ctrl-C does; its exit status. What it still shows is read, or it would wait."""
        self._program.send_signal(signal.SIGINT)
        deadline = time.monotonic() + PATIENCE_S
        while self._program.poll() is None:
            assert time.monotonic() < deadline, self._shown[-2000:]
            self._read()
        return self._program.returncode

    def _read(self) -> None:
        if not select.select([self._end], [], [], 0.2)[0]:
            return
        with suppress(OSError):  # Linux's word for nobody being at the other end
            self._shown = (self._shown + os.read(self._end, 65536))[-65536:]

    def close(self) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._end)


@pytest.fixture
def terminal(kube: FakeKube, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    with FakeHttp(kube) as served:
        config = served.kubeconfig(tmp_path / "kubeconfig")
        environment = {
            "KUBECONFIG": str(config),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm",
            "COLUMNS": "160",
            "LINES": "24",
        }
        opened: list[Terminal] = []

        def run(*words: str) -> Terminal:
            opened.append(Terminal(environment, sys.executable, "-m", "kyb", *words))
            return opened[-1]

        yield run
        for one in opened:
            one.close()


def test_it_shows_changes_and_outages_until_it_is_ended(
    kube: FakeKube, terminal: Callable[..., Terminal]
) -> None:
    kube.seed(a_gpunode())
    shown = terminal("top", "--every", "0.2")
    shown.await_text("Simulated 80GB")
    shown.await_text("no workloads")
    kube.outage()
    shown.await_text("the API server does not answer")
    assert shown.interrupt() == 0
