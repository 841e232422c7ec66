"""
What goes wrong between us and others. Every process boundary knows two families:

`Retry`: it may work later. `Refused`: it will not, until somebody changes something. (`Malformed`
of `kybernate/api` is of the second kind.) Foreign errors never leave an adapter.
"""

from collections.abc import Mapping
from typing import Any


class Retry(Exception):
    """It may work later: after `after` seconds where the other side said so, else None."""

    after: float | None = None


class Refused(Exception):
    """It will not work until somebody changes something."""


class ApiError(Exception):
    """The API server's answer was no. `status` is HTTP's (0: there was no answer)."""

    def __init__(
        self, status: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason  # metav1.StatusReason, for example "AlreadyExists"
        self.message = message
        self.details: Mapping[str, Any] = details or {}


class NotFound(ApiError, Refused):
    """No such object (404)."""


class AlreadyExists(ApiError, Refused):
    """Somebody made it before (409)."""


class Conflict(ApiError, Refused):
    """The object changed since it was read, or a precondition failed (409): read it again."""


class Gone(ApiError, Refused):
    """The resourceVersion or continue token is too old (410): list again."""


class Forbidden(ApiError, Refused):
    """RBAC or admission says no (403), or we are not known (401)."""


class Invalid(ApiError, Refused):
    """The object does not pass validation (400, 422)."""


class Unavailable(ApiError, Retry):
    """The network, an overloaded server, or one that is not there (0, 429, 5xx)."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        after: float | None = None,
    ) -> None:
        super().__init__(status, reason, message, details)
        self.after = after


_KINDS: Mapping[int, type[ApiError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
}


def from_status(status: int, body: Mapping[str, Any], retry_after: float | None = None) -> ApiError:
    """The error for an answer of 400 and above. `body` is a metav1.Status, or empty."""
    reason = str(body.get("reason") or "Unknown")
    message = str(body.get("message") or f"the server answered {status}")
    details = body.get("details") or {}
    if status == 429 or status >= 500:
        after = retry_after or details.get("retryAfterSeconds")
        return Unavailable(status, reason, message, details, after)
    kind = AlreadyExists if reason == "AlreadyExists" else _KINDS.get(status, ApiError)
    return kind(status, reason, message, details)
