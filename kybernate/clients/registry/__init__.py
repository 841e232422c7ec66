"""
The registry, over mTLS: told by agents, asked by people and processes.

Called by: agents (`record`, `take_inventory`), `kyb registry`. The messages are read and written
here for both ends, the registry's server too.
Errors: `RegistryAway` (Retry: nobody answers, or its database does not) and `RegistryRefused` (the
request makes no sense, or it does not know us). Rule: nobody's work waits for the registry.
"""

from kybernate.clients.registry.client import Page, Registry, Taken
from kybernate.clients.registry.errors import RegistryAway, RegistryRefused

__all__ = ["Page", "Registry", "RegistryAway", "RegistryRefused", "Taken"]
