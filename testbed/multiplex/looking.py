"""
The activator's own figures as they stream (`/ui/events`): the same that its page shows.

Called by: `__main__`. A stream that ends is opened again; what was heard last stands meanwhile.
"""

import json
import threading
from contextlib import suppress
from typing import Any

import urllib3

_AGAIN_S = 0.5
_SILENT_S = 10.0


class Looking:
    """A context manager. `latest` is None before the first word. Thread safe."""

    def __init__(self, view_url: str) -> None:
        self.latest: dict[str, Any] | None = None
        self._url = f"{view_url}/ui/events"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Looking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_SILENT_S)

    def _follow(self) -> None:
        while not self._over.wait(0.0 if self.latest is None else _AGAIN_S):
            with suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
                self._listen()
            if self.latest is None:
                self._over.wait(_AGAIN_S)

    def _listen(self) -> None:
        answer = urllib3.request(
            "GET", self._url, preload_content=False, timeout=_SILENT_S, retries=False
        )
        rest = b""
        for chunk in answer.stream(1 << 16):
            *events, rest = (rest + chunk).split(b"\n\n")
            for event in events:
                found = event.partition(b"data: ")[2]
                if found:
                    self.latest = json.loads(found)
            if self._over.is_set():
                answer.close()
                return
