"""
Objects in an S3 bucket, by obstore.

Called by: pipelines. Rule: one try; who wants more puts `retrying` around it. Rule: what is not
one of the answers we know is Away, for object servers fail in many words.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions as theirs
from obstore.store import S3Store

from kybernate.artifacts.chunks import Bytes
from kybernate.stores import port
from kybernate.stores.errors import Absent, Away, Denied
from kybernate.stores.port import Listed

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_TIMEOUT = "60s"  # for one object of 32 MiB: half a megabyte each second
_CONNECT = "5s"
_DENIED = re.compile(r"status code: 40[13]\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where a bucket is and who we are. Without keys it is what the environment says (instance
    roles, web identity); without an endpoint it is AWS."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = "us-east-1"
    key_id: str = ""
    secret: str = field(default="", repr=False)
    timeout: str = _TIMEOUT


class Bucket:
    """See `port.Store`."""

    def __init__(self, access: Access) -> None:
        """Nothing is asked yet. Raises Denied where the settings make no sense."""
        options: ClientConfig = {
            "timeout": access.timeout,
            "connect_timeout": _CONNECT,
            "allow_http": access.endpoint.startswith("http://"),
        }
        config: S3Config = {"region": access.region}
        if access.endpoint:
            config |= {"endpoint": access.endpoint, "virtual_hosted_style_request": False}
        if access.key_id:
            config |= {"access_key_id": access.key_id, "secret_access_key": access.secret}
        try:
            self._store = S3Store(
                access.bucket,
                prefix=access.prefix or None,
                config=config,
                client_options=options,
                retry_config={"max_retries": 0},
            )
        except theirs.BaseError as error:
            raise Denied(f"bucket {access.bucket}: {error}") from error

    def put(self, key: str, content: Bytes) -> None:
        """As the port says."""
        port.checked(key)
        with _told(key):
            obstore.put(self._store, key, memoryview(content), use_multipart=False)

    def get(
        self, key: str, offset: int = 0, size: int | None = None, into: memoryview | None = None
    ) -> memoryview:
        """As the port says."""
        port.checked(key)
        with _told(key):
            if offset == 0 and size is None:
                return port.placed(memoryview(obstore.get(self._store, key).bytes()), into)
            begin, end = port.cut(offset, size, self.stat(key).size)
            if begin == end:
                return memoryview(b"")
            found = obstore.get_range(self._store, key, start=begin, end=end)
            if len(found) != end - begin:
                raise Away(f"{key}: {len(found)} bytes of {end - begin}")
            return port.placed(memoryview(found), into)

    def stat(self, key: str) -> Listed:
        """As the port says."""
        port.checked(key)
        with _told(key):
            return _listed(obstore.head(self._store, key))

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """As the port says."""
        below = port.checked_prefix(prefix)
        with _told(below):
            for several in obstore.list(self._store, below or None, chunk_size=1000):
                yield from map(_listed, several)

    def delete(self, key: str) -> bool:
        """As the port says: asked first, since S3 does not tell."""
        try:
            self.stat(key)
        except Absent:
            return False
        with _told(key):
            obstore.delete(self._store, key)
        return True


def _listed(found: Any) -> Listed:
    return Listed(key=found["path"], size=found["size"], put_at=found["last_modified"].timestamp())


@contextmanager
def _told(what: str) -> Iterator[None]:
    """obstore's errors in our words."""
    try:
        yield
    except (theirs.NotFoundError, FileNotFoundError):
        raise Absent(what) from None
    except (theirs.PermissionDeniedError, theirs.UnauthenticatedError) as error:
        raise Denied(f"{what}: {_short(error)}") from None
    except (theirs.BaseError, OSError) as error:
        if "NoSuchBucket" in str(error):  # errors of a listing have no kinds of their own
            raise Denied(f"{what}: there is no such bucket") from None
        if _DENIED.search(str(error)):
            raise Denied(f"{what}: {_short(error)}") from None
        raise Away(f"{what}: {_short(error)}") from None


def _short(error: Exception) -> str:
    """Theirs are pages long."""
    return str(error).partition("\n")[0][:300]
