"""The registry's settings; how they are given is in `kybernate/runtime/settings.py`."""

from dataclasses import dataclass

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from kybernate.api.errors import Fault, Malformed
from kybernate.runtime.settings import ProcessSettings, setting

MEMORY = "memory:"
_EXPECTED = (
    f"sqlite:///relative.db, sqlite:////absolute.db, postgresql://USER@HOST/DATABASE or {MEMORY}"
)


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """Knows which checkpoints exist, where, and what happened to them."""

    listen: str = setting(
        ":8443", unit="address", help="where agents and kyb reach us; mTLS with --tls-dir"
    )
    database: str = setting(
        "sqlite:////var/lib/kyb/registry/registry.db",
        help="what keeps the rows: sqlite:////FILE for one replica, postgresql://USER@HOST/NAME "
        "for several, memory: for none longer than the process. A password is better given by "
        "PGPASSWORD or PGPASSFILE than here",
    )
    insecure: bool = setting(
        False, help="serve without TLS where there is no --tls-dir, on loopback and for tests only"
    )

    def __post_init__(self) -> None:
        """Raises Malformed with every fault."""
        faults = []
        if self.database != MEMORY and _url(self.database) is None:
            shown = self.database.partition("@")[2] or self.database  # never a password
            faults.append(Fault("database", shown, _EXPECTED))
        if self.tls_dir is None and not self.insecure:
            faults.append(Fault("tlsDir", None, "a folder with tls.crt, tls.key and ca.crt"))
        if faults:
            raise Malformed(faults)

    @property
    def url(self) -> URL | None:
        """Of the database; None for none."""
        return None if self.database == MEMORY else _url(self.database)


def _url(text: str) -> URL | None:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return None
    if url.drivername == "sqlite" and url.database:
        return url
    if url.drivername in ("postgresql", "postgres") and url.database:
        return url.set(drivername="postgresql+psycopg")
    return None
