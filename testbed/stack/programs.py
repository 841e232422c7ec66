"""Our processes as programs: one argument list each, and how each tells that it is ready.

Called by `testbed.stack.stack` and `testbed.stack.nodes`. Every process has a metrics address with
/readyz. Ports are guesses: a process that loses its port to somebody says so and is started again.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from testbed import ports
from testbed.processes import Processes, ProcessFailed

READY_S = 60.0
LOOK_EVERY_S = 0.05
_ATTEMPTS = 3
_CLASH = "in use"
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "XDG_CACHE_HOME", "KYB_ASSETS")


@dataclass(frozen=True, slots=True)
class Where:
    """Where programs run: by default as they are; on a real node, entered and at its address."""

    address: str = ports.LOOPBACK
    entered: Callable[[Sequence[str | Path]], list[str]] = lambda argv: [str(one) for one in argv]
    environment: Mapping[str, str] = field(default_factory=dict)


HERE = Where()


@dataclass(frozen=True, slots=True)
class Running:
    """A started process of ours. `port` is the one it serves at; 0 where it serves none."""

    name: str
    port: int
    metrics_port: int
    argv: tuple[str, ...] = ()
    where: Where = HERE

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://{self.where.address}:{self.port}"

    def ready(self) -> bool:
        """Whether it says so."""
        return answers(f"http://{self.where.address}:{self.metrics_port}/readyz")

    def metrics(self) -> str:
        """The text of its /metrics."""
        url = f"http://{self.where.address}:{self.metrics_port}/metrics"
        return urllib3.request("GET", url, timeout=5.0).data.decode()


def run(
    processes: Processes,
    name: str,
    module: str,
    arguments: Callable[[int], Sequence[str | Path]],
    where: Where = HERE,
) -> Running:
    """Start `python -m module` with `arguments(port)` and wait until it is ready.

    Raises ProcessFailed with its last log lines.
    """
    for attempt in range(_ATTEMPTS):
        port, metrics_port = ports.guess(), ports.guess()
        argv = [sys.executable, "-m", module, *map(str, arguments(port))]
        argv += [f"--metrics-listen={where.address}:{metrics_port}"]
        running = Running(name, port, metrics_port, tuple(argv), where)
        try:
            start(processes, name, running.argv, ready=running.ready, where=where)
        except ProcessFailed as failed:
            if _CLASH not in str(failed) or attempt == _ATTEMPTS - 1:
                raise
        else:
            return running
    raise AssertionError("unreachable: the last attempt raises")


def start(
    processes: Processes,
    name: str,
    argv: Sequence[str | Path],
    *,
    ready: Callable[[], bool] = lambda: True,
    afterwards: Sequence[str] = (),
    where: Where = HERE,
) -> None:
    """Start a program with the little of our environment that it needs.

    `afterwards` ends what it may leave running: see `testbed.processes`.
    """
    env = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
    env.update(where.environment)
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    env["PYTHONUNBUFFERED"] = "1"
    processes.start(
        name,
        where.entered(argv),
        ready=ready,
        within=READY_S,
        env=env,
        afterwards=afterwards,
    )


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        answer = urllib3.request("GET", url, timeout=1.0, retries=False)
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200


def wait_for(ready: Callable[[], bool], what: str, seconds: float = READY_S) -> None:
    """Look until it is so. Raises ProcessFailed naming `what`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ProcessFailed(f"{what}: not there after {seconds:g} s")
        time.sleep(LOOK_EVERY_S)
