"""
A device plugin's exchange with a kubelet, as `tests/deviceplugin/recorder.py` writes it down, made
comparable. Called by tests on both sides: with a real kubelet, and with the light node's.

Rule: what happens at once is in no order. A life of the plugin's socket is a phase; within it, all
that counts is what was said, and each list of device ids is a set.
"""

import json
from typing import Any

BEGINS = "listens on"


def phases(recorded: str) -> list[list[str]]:
    """The lines of each phase, sorted, ids sorted in them, what was said twice once."""
    found: list[set[str]] = []
    for line in recorded.splitlines():
        happened = json.loads(line)
        if happened["call"].startswith(BEGINS):
            found.append(set())
        found[-1].add(json.dumps(_sorted(happened), sort_keys=True))
    return [sorted(phase) for phase in found]


def text(recorded: str) -> str:
    """The phases as a golden file has them: an empty line between two."""
    return "\n\n".join("\n".join(phase) for phase in phases(recorded)) + "\n"


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(one) for name, one in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(one) for one in value), key=json.dumps)
    return value
