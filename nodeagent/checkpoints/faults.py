"""How dealing with a checkpoint ends when it does not end well."""

from kybernate.clients.errors import Refused, Retry
from kybernate.model.checkpoint import Flaw

DAMAGE = frozenset(
    {
        Flaw.MALFORMED, Flaw.UNSIGNED, Flaw.FORGED, Flaw.MISPLACED, Flaw.BAD_NAME, Flaw.TOO_LARGE,
        Flaw.FILE_MISSING, Flaw.FILE_EXTRA, Flaw.FILE_SIZE, Flaw.FILE_ALTERED, Flaw.LINK,
        Flaw.SPECIAL_FILE,
    }
)  # fmt: skip
"""What another copy of the same checkpoint may not have."""


class Unusable(Refused):
    """The checkpoint cannot be used. `reason` is constant, `detail` says what was found."""

    def __init__(self, reason: Flaw, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class NoRoom(Refused):
    """It does not fit, by the store's limit or the disk's. Nothing of it is left."""


class AlreadySealed(Refused):
    """There is a checkpoint of this name; it stays as it is."""


class NotSealed(Refused):
    """The draft cannot become a checkpoint: something in it is not allowed."""


class PeerAway(Retry):
    """No agent could give the checkpoint now."""


class Cancelled(Refused):
    """Somebody asked that it ends; nothing of it is left."""
