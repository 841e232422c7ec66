"""The parts of a registry, made and started in order. Called by `__main__`."""

import fcntl
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import URL

from kybernate.runtime import serving
from kybernate.runtime.health import Health
from kybernate.runtime.logs import get_logger
from kybernate.runtime.metrics import Metrics
from kybernate.runtime.tls import TlsFiles
from registry.catalogue import Catalogue, DatabaseAway
from registry.doors import Server
from registry.memory import Memory
from registry.service import Service
from registry.settings import Settings
from registry.sql import Sql


class Process:
    """One registry. `start` returns at once; `stop` ends calls under way first."""

    def __init__(self, settings: Settings) -> None:
        """Raises OSError where an address, a folder or the file is not to be had."""
        self._settings = settings
        self._alone = _alone(settings.url)
        self._catalogue: Catalogue = Memory() if settings.url is None else Sql(settings.url)
        self._metrics = Metrics()
        told = self._metrics.counter(
            "registry_occurrences", "What was told, by what became of it", ("outcome",)
        )
        self.server = Server(
            Service(self._catalogue, lambda outcome, count: told.labels(outcome).inc(count))
        )
        self.telemetry = serving.telemetry(settings.metrics_listen, self._health(), self._metrics)

    def start(self) -> None:
        """Serve, whether the database answers yet or not: until it does, callers come again."""
        self.telemetry.start()
        tls = TlsFiles(self._settings.tls_dir) if self._settings.tls_dir else None
        self.server.start(self._settings.listen, tls)
        get_logger(port=self.server.port).info("serving")

    def stop(self) -> None:
        """End everything."""
        self.server.stop()
        self._catalogue.close()
        if self._alone is not None:
            self._alone.close()
        self.telemetry.stop()

    def _health(self) -> Health:
        health = Health()
        health.ready("server", lambda: None if self.server.port else "not served yet")
        health.ready("database", self._database)
        return health

    def _database(self) -> str | None:
        try:
            self._catalogue.epoch()
        except DatabaseAway as away:
            return str(away)
        return None


def _alone(url: URL | None) -> BinaryIO | None:
    """Hold the file of SQLite for ourselves; its folder is made. Raises OSError."""
    if url is None or url.get_backend_name() != "sqlite":
        return None
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = path.with_name(f"{path.name}.lock").open("ab")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise OSError(
            f"{path} is another registry's; several replicas need postgresql://"
        ) from None
    return held
