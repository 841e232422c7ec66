"""SIGTERM asks a process to end; a second one insists."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kybernate.runtime.clock import SystemClock
from kybernate.runtime.stopping import stop_event


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, action in before.items():
        signal.signal(number, action)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_sets_the_event(number: signal.Signals) -> None:
    event = stop_event()
    assert not event.is_set()
    os.kill(os.getpid(), number)
    assert event.wait(10)


def test_a_loop_that_waits_on_the_clock_ends_at_once() -> None:
    event = stop_event()
    os.kill(os.getpid(), signal.SIGTERM)
    assert SystemClock().wait(event, 60.0)


def test_the_second_signal_ends_a_process_that_does_not_listen() -> None:
    program = """
import sys, threading
from kybernate.runtime.stopping import stop_event
stop_event()
print("ready", flush=True)
threading.Event().wait(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
