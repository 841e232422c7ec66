"""How dealing with a checkpoint ends when it does not end well."""

from kybernate.clients.errors import Refused, Retry


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
