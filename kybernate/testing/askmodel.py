"""
Asking a model server of the testbed, as soon as it has an address and listens.

Called by: tests of real nodes.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from kybernate.testing.agentnode import wait_for

_PORT = 8080
_ANSWER_S = 60.0  # it may wait for its GPU


def predict(address: Callable[[], str | None], within: float) -> dict[str, Any]:
    """Its answer: {"counter", "intact", "seconds"}. `within` is in seconds, until it listens."""

    def ask() -> dict[str, Any] | None:
        where = address()
        if not where:
            return None
        url = f"http://{where}:{_PORT}/predict"
        request = urllib.request.Request(url, data=b"", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310
                said: dict[str, Any] = json.load(answer)
                return said
        except urllib.error.URLError:
            return None

    said: dict[str, Any] = wait_for(ask, "the model answers", within)
    return said
