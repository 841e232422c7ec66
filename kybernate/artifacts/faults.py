"""How reading what a store or a peer gave us ends when it does not end well."""

from kybernate.clients.errors import Refused
from kybernate.model.checkpoint import Flaw

DAMAGE = frozenset(
    {
        Flaw.MALFORMED, Flaw.UNSIGNED, Flaw.FORGED, Flaw.MISPLACED, Flaw.BAD_NAME, Flaw.TOO_LARGE,
        Flaw.FILE_MISSING, Flaw.FILE_EXTRA, Flaw.FILE_SIZE, Flaw.FILE_ALTERED, Flaw.LINK,
        Flaw.SPECIAL_FILE, Flaw.PACK_MISSING, Flaw.PACK_ALTERED,
    }
)  # fmt: skip
"""What another copy of the same checkpoint may not have."""


class Unusable(Refused):
    """The checkpoint cannot be used. `reason` is constant, `detail` says what was found."""

    def __init__(self, reason: Flaw, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
