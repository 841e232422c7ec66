"""How a store says no. `Refused`: not until somebody changes something. `Retry`: perhaps later."""

from kybernate.clients.errors import Refused, Retry


class Absent(Refused):
    """There is no such object."""


class BadKey(Refused):
    """This is no key: lower-case words with `/` between."""


class NoRoom(Refused):
    """The object does not fit. Nothing of it is left."""


class Denied(Refused):
    """The store does not know us, or does not let us."""


class Faulty(Refused):
    """The disk failed to read or write."""


class Away(Retry):
    """Nobody answers, or not in a way that makes sense; or what came was cut short."""
