"""
An OPA server: the policies' evaluator, as it stands beside the processes that ask it.

Called by: tests, benchmarks, the demo (`testbed.stack`).
Rule: loopback only, one work folder a server; it asks nobody on the internet for anything.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import urllib3

from testbed import assets, ports
from testbed.processes import Processes, ProcessFailed

_NAME = "opa"
_ATTEMPTS = 5
_CLASH = "address already in use"
_READY_S = 30.0
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "GOMAXPROCS")


class Opa:
    """One running OPA; `start` makes it. A context manager that stops it."""

    def __init__(self, processes: Processes, url: str, argv: Sequence[str]) -> None:
        self.url = url
        """`http://127.0.0.1:PORT`, where the REST API is."""
        self._processes = processes
        self._argv = argv

    @classmethod
    def start(
        cls,
        work: Path,
        *,
        bundle: Path | None = None,
        config: Path | None = None,
        detached: bool = False,
    ) -> "Opa":
        """Serve the policies of `bundle` (a folder or a .tar.gz), or what `config` names.

        `config` is OPA's own configuration file, for example one that polls bundles; the server is
        ready when it answers; `has_bundles` tells when it has activated them.
        Raises ProcessFailed when OPA does not accept the policies.
        """
        program = assets.ensure([_NAME])[_NAME]
        work = work.absolute()
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        processes = Processes(work, detached=detached)
        argv = [str(program), *_arguments(bundle, config)]
        try:
            return cls(processes, *_run(processes, argv))
        except BaseException:
            processes.stop(_NAME)
            processes.close()
            raise

    def __enter__(self) -> "Opa":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """Where it writes, lines of JSON; decision logs too, when `config` sends them there."""
        return self._processes.log(_NAME)

    def has_bundles(self) -> bool:
        """Whether every bundle of its configuration is active."""
        return _answers(f"{self.url}/health?bundles")

    def kill(self) -> None:
        """An outage: nobody answers at its address until `start_again`."""
        self._processes.kill(_NAME)

    def start_again(self) -> None:
        """At its address; ready when it answers. Raises ProcessFailed."""
        _start(self._processes, self._argv, self.url)

    def stop(self) -> None:
        """End it."""
        self._processes.stop(_NAME)
        self._processes.close()

    def close(self) -> None:
        """Let go of it: a detached one runs on, another one is stopped."""
        self._processes.close()


def _arguments(bundle: Path | None, config: Path | None) -> Iterator[str]:
    yield from ("run", "--server", "--log-format=json", "--disable-telemetry")
    if bundle:
        yield from ("--bundle", str(bundle.absolute()))
    if config:
        yield f"--config-file={config.absolute()}"


def _run(processes: Processes, argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Start it on a port that is free; OPA cannot share a held one, so another may be quicker.

    Its URL, and the arguments it has there.
    """
    for _ in range(_ATTEMPTS):
        address = f"{ports.LOOPBACK}:{ports.guess()}"
        url, placed = f"http://{address}", [*argv, f"--addr={address}"]
        try:
            _start(processes, placed, url)
        except ProcessFailed as problem:
            if _CLASH not in str(problem):
                raise
        else:
            return url, placed
    raise ProcessFailed(f"OPA found no free port in {_ATTEMPTS} attempts")


def _start(processes: Processes, argv: Sequence[str], url: str) -> None:
    processes.start(
        _NAME,
        argv,
        ready=partial(_answers, f"{url}/health"),
        within=_READY_S,
        env={key: os.environ[key] for key in _PASSED_ON if key in os.environ},
    )


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=2.0, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False
