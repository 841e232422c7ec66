"""
One pod on its way to wake: what it has so far, and what its runtime is answered.

Called by: `attempts`, which moves it on; `wakings`.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kybernate.clients.checkpoints import Claimed
from kybernate.clients.errors import Refused
from kybernate.clients.runtimecalls import Call
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.workload import Workload
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.lives.life import Life
from nodeagent.stories.story import Story

COLD = {"ok": "cold"}
ARRIVED = {"ok": "heard"}
COMING = {"error": "its checkpoint is on its way", "again": "yes", "coming": "yes"}
SUPERSEDED = {"error": "another container of its pod came after it"}


class NotPrepared(Refused):
    """What was asked cannot be answered with a checkpoint; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The contents of one are in the pool; what is left to do is its container's."""

    life: Life
    story: Story
    sealed: Sealed
    image: Path  # its process image, taken out for this pod
    here: Fingerprint | None  # None: as yet for no container


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One pod's. `call` is of the container that is meant, `answer` is for it once `done`."""

    pod: Workload
    call: Call
    before: set[str] = field(default_factory=set)  # containers that are meant no more
    tried: set[str] = field(default_factory=set)  # checkpoints that did not do
    done: threading.Event = field(default_factory=threading.Event)
    answer: Mapping[str, str] = field(default_factory=lambda: COLD)
    claimed: Claimed | None = None
    ready: Ready | None = None
    answered: float = 0.0  # monotonic
