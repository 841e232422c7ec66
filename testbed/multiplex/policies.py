"""
The policies' data for a viewer without patience: short turns, and as many switches as are wanted.

Called by: `__main__`, before the models come. People would edit the same ConfigMap.
"""

import json
from dataclasses import dataclass
from typing import Any

from kybernate.api import names
from testbed.demo.stage import CLASSES, Stage

TURNS = "data__turns.json"
_MANY = 100_000  # switches a minute


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: that a model keeps its GPU at least, at most while others wait, and idle."""

    least: float = 1.0
    most: float = 10.0
    idle: float = 1.0


def quicken(stage: Stage, pace: Pace) -> None:
    """Have OPA decide so, and wait until it does. Raises Unexpected, KubectlFailed."""
    before = stage.stack.policy_revision()
    data: dict[str, str] = stage.get("configmap", "kyb-policies", *_IN)["data"]
    classes, turns = json.loads(data[CLASSES]), json.loads(data[TURNS])
    classes["inference"] |= {
        "min_runtime_seconds": pace.least,
        "slice_seconds": pace.most,
        "idle_after_seconds": pace.idle,
    }
    turns["switches_per_minute_max"] = _MANY
    _patch(stage, {CLASSES: classes, TURNS: turns})
    stage.until(lambda: stage.stack.policy_revision() != before, "new policies in OPA")


def _patch(stage: Stage, changed: dict[str, Any]) -> None:
    texts = {name: json.dumps(one, indent=2) for name, one in changed.items()}
    patch = json.dumps({"data": texts})
    stage.stack.plane.kubectl(
        "patch", "configmap", "kyb-policies", *_IN, "--type=merge", "-p", patch
    )


_IN = ("-n", names.SYSTEM_NAMESPACE)
