"""
The few calls to the API server that the testbed itself makes, with the administrator's certificate.

Called by: `testbed.controlplane`, `testbed.projection`.
Rule: bodies are plain dicts; an answer of 400 and above is an ApiError with the server's words.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import urllib3

from testbed.pki import Pair

_JSON = {"Content-Type": "application/json"}
_TIMEOUT = urllib3.Timeout(connect=2.0, read=10.0)


class ApiError(Exception):
    """The API server refused, or could not be reached (status 0)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}" if status else text)
        self.status = status


class Api:
    """A connection to one API server, kept alive; safe for several threads."""

    def __init__(self, server: str, authority: Path, client: Pair) -> None:
        self.server = server
        self.authority = authority
        self.client = client
        self._pool = urllib3.PoolManager(
            ca_certs=str(authority),
            cert_file=str(client.certificate),
            key_file=str(client.key),
            timeout=_TIMEOUT,
            retries=False,
        )

    def get(self, path: str) -> Any:
        """The object at this path. Raises ApiError."""
        return orjson.loads(self._text("GET", self.server + path))

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the server made of `body`. Raises ApiError."""
        return orjson.loads(self._text("POST", self.server + path, orjson.dumps(body)))

    def exists(self, path: str) -> bool:
        """Whether there is something at this path; False also while the server is not there."""
        try:
            self._text("GET", self.server + path)
        except ApiError:
            return False
        return True

    def text(self, url: str) -> str:
        """What is at this address of another server with the same authority. Raises ApiError.

        On a connection of its own: one made before that server has loaded its authority stays
        anonymous for as long as it is kept.
        """
        return self._text("GET", url, headers={"Connection": "close"})

    def _text(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _JSON,
    ) -> str:
        try:
            answer = self._pool.request(method, url, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as problem:
            raise ApiError(0, f"{url}: {problem}") from problem
        if answer.status >= 400:
            raise ApiError(answer.status, _message(answer.data))
        return answer.data.decode()

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _message(body: bytes) -> str:
    """The words of a Status object, or the body where it is none."""
    try:
        return str(orjson.loads(body)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body.decode(errors="replace")
