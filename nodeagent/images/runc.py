"""
Images by runc and CRIU: the port, with the errors of everything below it in its own words.

Called by: whoever holds a `ProcessImages`.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nodeagent.images import dumping, fitness, identity, restoring, rootfs, tree, wire
from nodeagent.images.body import Body
from nodeagent.images.dumping import Tools
from nodeagent.images.port import Dumped, DumpFailed, Unfit
from nodeagent.linux.freezer import Freezing, NotFrozen, NotThawed


class RuncImages:
    """A `ProcessImages`."""

    def __init__(
        self,
        freezer: Freezing,
        runc: str = "runc",
        criu: str = "criu",
        plugins: Path | None = None,
    ) -> None:
        """Programs by name on PATH, or by path; runc itself looks for `criu` on its PATH.

        `plugins` is the folder with the plugin of native/criu, which closes unix sockets to the
        outside; without it, a workload that has one is unfit.
        """
        self._tools = Tools(freezer, runc, criu, (f"libdir {plugins}",) if plugins else ())

    def unfit(self, body: Body) -> tuple[Unfit, ...]:
        """As the port says."""
        body.check()
        return fitness.of(body, plugin=bool(self._tools.more))

    def dump(self, body: Body, into: Path) -> Dumped:
        """As the port says."""
        body.check()
        try:
            found = dumping.dump(self._tools, body, into)
            return Dumped(folder=into, size=_size(into), facts=found)
        except (NotFrozen, NotThawed, rootfs.NoOverlay, tree.BadTree, wire.NotAnImage) as error:
            raise DumpFailed(str(error)) from error
        except OSError as error:
            raise DumpFailed(str(error)) from error

    def restoration(self, image: Path, bundle: Path) -> Mapping[str, str]:
        """As the port says."""
        return restoring.prepare(self._tools, image, bundle)

    def woken(self, body: Body) -> None:
        """As the port says."""
        body.check()
        chosen = identity.wake_signal(body.config)
        if chosen is not None:
            with suppress(ProcessLookupError):
                os.kill(body.pid, chosen)


def _size(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
