"""
Having all of a container stand still, and go on: by its cgroup, v1 or v2.

Called by: the stories and the mechanisms (frozen last; thawed before a driver's call or a kill: on
v1 a frozen process cannot even die), recovery (frozen without a record is thawed).
Rule: it returns when it is so. What does not come to a stand within the time limit goes on, and
that is said: half frozen is never left.
Rule: where a container has no cgroup of its own that can be frozen, each of its processes is
stopped by a signal instead, and that is said. A signal is seen by parents and debuggers.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from kybernate.clients.clock import Clock
from kybernate.clients.errors import Retry
from kybernate.runtime.logs import get_logger
from nodeagent.linux import processes
from nodeagent.linux.cgroups import Cgroup, Cgroups, NoCgroup

# Freezing takes a millisecond; a process that waits in the kernel for a device takes as long as
# that does, and a drive that answers does so well within this.
LIMIT_S = 5.0
_LOOK_S = 0.001
_NEVER = threading.Event()


class NotFrozen(Retry):
    """It did not come to a stand within the limit, and goes on."""


class NotThawed(Retry):
    """It does not go on: something above it is frozen."""


class Means(StrEnum):
    """What holds it."""

    CGROUP_V1 = "cgroup v1"
    CGROUP_V2 = "cgroup v2"
    SIGNALS = "signals"


class Freezing(Protocol):
    """The port. `pid` is the container's first process. Thread safe for different containers."""

    def freeze(self, pid: int, container_id: str) -> Means:
        """All of the container stands when this returns. Twice is fine. Raises NotFrozen."""

    def thaw(self, pid: int, container_id: str) -> None:
        """It goes on, by whatever means it was held. Twice is fine. Raises NotThawed."""

    def frozen(self, pid: int, container_id: str) -> bool:
        """Whether it was frozen and not thawed."""


class Freezer:
    """`Freezing` by what the kernel has."""

    def __init__(self, clock: Clock, cgroups: Cgroups, limit: float = LIMIT_S) -> None:
        self._clock, self._cgroups, self._limit = clock, cgroups, limit
        self._said: set[str] = set()

    def freeze(self, pid: int, container_id: str) -> Means:
        """As the port says."""
        try:
            switch = self._switch(pid, container_id)
            switch.ask(True)
        except (NoCgroup, OSError) as error:
            return self._stop(pid, container_id, str(error))
        if self._until(switch.insists):
            return switch.means
        self.thaw(pid, container_id)
        raise NotFrozen(f"it did not come to a stand within {self._limit:.0f} s")

    def thaw(self, pid: int, container_id: str) -> None:
        """As the port says."""
        with suppress(NoCgroup, OSError):  # it is gone with its container
            switch = self._switch(pid, container_id)
            if switch.asked():
                switch.ask(False)
            if not self._until(switch.goes_on):
                raise NotThawed(f"it does not go on: a cgroup above {switch.folder} is frozen")
        if processes.is_stopped(pid):
            processes.thaw(pid)

    def frozen(self, pid: int, container_id: str) -> bool:
        """As the port says."""
        with suppress(NoCgroup, OSError):
            if self._switch(pid, container_id).asked():
                return True
        return processes.is_stopped(pid)

    def _switch(self, pid: int, container_id: str) -> "_Switch":
        return _switch_of(self._cgroups.of(pid, container_id))

    def _stop(self, pid: int, container_id: str, why: str) -> Means:
        if container_id not in self._said:
            self._said.add(container_id)
            get_logger(container=container_id, why=why).warning("frozen by signals")
        if os.getpid() in processes.tree(pid):
            raise NotFrozen("the node agent itself is below it")
        if processes.freeze(pid):
            return Means.SIGNALS
        processes.thaw(pid)
        raise NotFrozen("some of its processes did not stop")

    def _until(self, holds: Callable[[], bool]) -> bool:
        until = self._clock.monotonic() + self._limit
        while not holds():
            if self._clock.monotonic() >= until:
                return False
            self._clock.wait(_NEVER, _LOOK_S)
        return True


@dataclass(frozen=True, slots=True)
class _Switch:
    """What freezes one cgroup. Its methods raise OSError once the cgroup is gone."""

    means: Means
    folder: Path
    asking: str  # the file that is written
    words: tuple[str, str]  # to thaw, to freeze
    own: str  # the file with 1 in it while it was asked to, whatever those above were
    telling: str  # the file that says how it stands
    standing: str  # a line of that file while everybody stands

    def ask(self, freeze: bool) -> None:
        """Begin."""
        (self.folder / self.asking).write_text(self.words[freeze])

    def asked(self) -> bool:
        """Whether it was asked to be frozen, and not to be thawed since."""
        return (self.folder / self.own).read_text().strip() == "1"

    def stands(self) -> bool:
        """Whether everybody in it, and below, stands."""
        return self.standing in (self.folder / self.telling).read_text().splitlines()

    def goes_on(self) -> bool:
        """Whether nobody has it stand any more. On v2 one that is held above may be shown as not
        frozen for a moment, so those above are asked, too."""
        if self.stands():
            return False
        if self.means is Means.CGROUP_V1:
            return (self.folder / "freezer.parent_freezing").read_text().strip() == "0"
        above = (folder / self.own for folder in self.folder.parents)
        return not any(file.exists() and file.read_text().strip() == "1" for file in above)

    def insists(self) -> bool:
        """As `stands`; else it is asked again: v1 passes over processes that are being made."""
        try:
            if self.stands():
                return True
            self.ask(True)
        except OSError:
            return True  # nobody is left in it
        return False


def _switch_of(cgroup: Cgroup) -> _Switch:
    """Raises NoCgroup where the kernel has no freezer for it."""
    v1, v2 = "freezer.state", "cgroup.freeze"
    if not (cgroup.folder / (v2 if cgroup.unified else v1)).exists():
        raise NoCgroup("this kernel has no freezer for its cgroup")
    if cgroup.unified:
        means, own, telling, standing = Means.CGROUP_V2, v2, "cgroup.events", "frozen 1"
        return _Switch(means, cgroup.folder, v2, ("0", "1"), own, telling, standing)
    means, own, standing = Means.CGROUP_V1, "freezer.self_freezing", "FROZEN"
    return _Switch(means, cgroup.folder, v1, ("THAWED", "FROZEN"), own, v1, standing)
