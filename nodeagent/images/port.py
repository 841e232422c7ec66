"""
What a process image is to the rest of the agent: the words, the errors, the port.

Called by: the stories that seal and wake; `nodeagent.images.runc` implements it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from kybernate.clients.errors import Refused
from nodeagent.images.body import Body


class DumpFailed(Refused):
    """No image was made, and the workload is as it was; the message says why."""


class Unrestorable(Refused):
    """The image cannot be restored into this container; the message says why."""


class Unfitness(StrEnum):
    """Why a process cannot be put into an image: constant words."""

    NOT_BEGUN = "NotBegun"  # it is still held before its first instruction
    TRACED = "Traced"  # a debugger holds it
    STOPPED = "Stopped"  # by a signal, of its own accord
    OTHER_USER = "OtherUser"  # than the agent, which lacks CAP_SYS_RESOURCE on this machine
    IO_URING = "IoUring"
    USERFAULTFD = "Userfaultfd"
    PERF_EVENT = "PerfEvent"
    KERNEL_OBJECT = "KernelObject"  # another one that only lives in the kernel, like a BPF program
    DEVICE = "Device"  # a device file, open or mapped
    SOCKET = "Socket"  # of a kind CRIU does not know
    OUTSIDE_SOCKET = "OutsideSocket"  # a unix socket to a process outside the container
    SYSV_MEMORY = "SysVMemory"  # it is the pod's, not the container's
    DELETED_FILE = "DeletedFile"  # without a name, and too large to be carried in the image
    PROJECTED_FILE = "ProjectedFile"  # of a secret, token or config map, whose folder will differ
    NAMESPACE = "Namespace"  # it made one of its own
    MOUNT = "Mount"  # the container mounted something itself
    ROOT_FILE_SYSTEM = "RootFileSystem"  # its changes cannot be told apart
    CRIU_OPTIONS = "CriuOptions"  # somebody chose CRIU's options for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A process that stands in the way of an image."""

    pid: int
    command: str  # its name, as the kernel has it
    reason: Unfitness
    detail: str = ""  # which file, socket or path

    def __str__(self) -> str:
        """For people."""
        what = f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value
        return f"{self.command} ({self.pid}): {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumped:
    """A finished image: the folder holds nothing else, and no file of it changes any more."""

    folder: Path
    size: int  # bytes of all its files
    facts: Mapping[str, str]
    """What it fits: kernel, machine, CRIU's version, the command; all are in the folder, too."""


class ProcessImages(Protocol):
    """Making images of containers, and new containers of them. Thread safe for different ones."""

    def unfit(self, body: Body) -> tuple[Unfit, ...]:
        """What stands in the way; empty where an image can be tried. Nothing is frozen for it."""
        ...

    def dump(self, body: Body, into: Path) -> Dumped:
        """Put an image into an empty folder. The workload stands and runs as before, whatever
        happens: frozen stays frozen, running goes on after a standstill. Raises DumpFailed,
        BodyGone.
        """
        ...

    def woken(self, body: Body) -> None:
        """Tell a restored container that it woke, if it asked for a signal. Call it once, after
        `held` and before the container first goes on. Raises BodyGone.
        """
        ...

    def restoration(self, image: Path, bundle: Path) -> Mapping[str, str]:
        """Prepare a new container, not yet made, to be restored from an image, and the fields that
        the reply to `creating` has besides `ok`. The image itself is only read, and must stay
        where it is until `held` is heard. Raises Unrestorable, BodyGone.
        """
        ...
