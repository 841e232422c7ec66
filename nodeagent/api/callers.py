"""Who may call an agent over the network. Called by: `servers`."""

from kybernate.api import names
from kybernate.runtime.callers import Callers

ALLOWED = frozenset({names.CLIENT.encode(), names.AGENT_CLIENT.encode()})
# An activator stands where everybody may come: it wakes, looks, and tells what it holds, no more.
ACTIVATOR = names.ACTIVATOR_CLIENT.encode()
ACTIVATORS_METHODS = frozenset({"Activate", "Watch", "ReportDemand"})
_REFUSED = f"this certificate is not {names.CLIENT}'s, who may ask agents"


def door() -> Callers:
    """The interceptor."""
    return Callers(_allowed, _REFUSED)


def _allowed(method: str) -> frozenset[bytes]:
    return ALLOWED | {ACTIVATOR} if method in ACTIVATORS_METHODS else ALLOWED
