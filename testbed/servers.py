"""
The processes of one control plane: their ports, their order, and when each is ready.

Called by: `testbed.controlplane`.
Rule: a server's port is held from the first start to the end, so it keeps it over restarts.
Rule: servers see no environment of the caller's that could change them (etcd reads ETCD_*).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson

from testbed import ports, record
from testbed.components import ETCD, SECURE
from testbed.processes import RECORD, Processes, ProcessFailed

Flags = Mapping[str, Sequence[str]]
"""More arguments, by the server's name: {"kube-apiserver": ["--feature-gates=X=true"]}."""
_STATE = "plane.json"
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "GOMAXPROCS")
_READY_S = 60.0
# kube-apiserver would wait a minute for open watches to end; what it had acknowledged is in etcd.
_GRACE_S = 2.0


class Servers:
    """Starts and stops the servers of one work folder."""

    def __init__(
        self,
        work: Path,
        programs: Mapping[str, Path],
        *,
        detached: bool,
        flags: Flags,
        numbers: Mapping[str, int],
    ) -> None:
        self._programs = programs
        self._flags = {name: list(flags.get(name, ())) for name in (ETCD, *SECURE)}
        self._processes = Processes(work, detached=detached)
        self._held = {name: ports.Held(numbers.get(name, 0)) for name in SECURE}
        state = {"ports": {name: self.port(name) for name in SECURE}, "flags": self._flags}
        (work / _STATE).write_bytes(orjson.dumps(state))

    @classmethod
    def start(
        cls, work: Path, programs: Mapping[str, Path], *, flags: Flags, detached: bool
    ) -> "Servers":
        """None runs yet; the ports are chosen. Raises ProcessFailed when the folder is in use."""
        if found := [one.name for one in record.read(work / RECORD) if record.alive(one)]:
            raise ProcessFailed(f"{work} is in use, {', '.join(found)} still run there")
        return cls(work, programs, detached=detached, flags=flags, numbers={})

    @classmethod
    def attach(cls, work: Path, programs: Mapping[str, Path]) -> "Servers":
        """Those of a detached plane. Raises FileNotFoundError when there was none here."""
        state = orjson.loads((work / _STATE).read_bytes())
        return cls(work, programs, detached=True, flags=state["flags"], numbers=state["ports"])

    def port(self, name: str) -> int:
        """The server's HTTPS port."""
        return self._held[name].number

    def url(self, name: str) -> str:
        """The server's address."""
        return f"https://{ports.LOOPBACK}:{self.port(name)}"

    def run(self, name: str, argv: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start it and wait until it is ready. Raises ProcessFailed."""
        self._processes.start(
            name,
            [self._programs[name], *argv, *self._flags[name]],
            ready=ready,
            within=_READY_S,
            env={key: os.environ[key] for key in _PASSED_ON if key in os.environ},
        )

    def running(self, name: str) -> bool:
        """Whether it runs."""
        return self._processes.running(name)

    def stop(self, name: str) -> None:
        """Stop it; nothing happens when it does not run."""
        self._processes.stop(name, _GRACE_S)

    def log(self, name: str) -> Path:
        """Where it writes."""
        return self._processes.log(name)

    def close(self) -> None:
        """Attached: stop what still runs. Detached: let go of it."""
        self._processes.close()
        for held in self._held.values():
            held.release()
