"""How these programs tell: one JSON file, replaced whole. Standard library only."""

import json
import os
import time
from pathlib import Path
from typing import Any


class Report:
    """The file, and the longest pause between two writings."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._last = time.monotonic()
        self.longest = 0.0

    def write(self, **facts: Any) -> None:
        """Replace what stands there."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps({"longest": self.longest, **facts}))
        os.replace(draft, self._path)  # noqa: PTH105 - one call

    def wants(self, what: str) -> bool:
        """Whether somebody left a file that asks for `what`; it is taken away."""
        asked = self._path.with_suffix(f".{what}")
        if not asked.exists():
            return False
        asked.unlink()
        return True
