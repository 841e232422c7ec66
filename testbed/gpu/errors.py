"""Why the device says no. `service` turns each into its gRPC status."""


class DeviceRefused(Exception):
    """Base of all below."""


class NoRoom(DeviceRefused):
    """The card has not that much memory free."""


class Absent(DeviceRefused):
    """No such card, context or segment; a context that ended is absent."""


class WrongState(DeviceRefused):
    """Not now: it is open where it must be locked, or the other way round."""


class Unfit(DeviceRefused):
    """It makes no sense: no bytes, another context's card, contents of the wrong length."""


class Sick(DeviceRefused):
    """The card is unhealthy, or a failure was injected. It may work later."""


class GaveUp(DeviceRefused):
    """The caller is no longer there."""


class Disconnected(DeviceRefused):
    """The context was disconnected: its process is to let go, and may come back later."""
