"""Plain copies between memory of our own and chunks of the pool, each once: the limit of what
parking can reach.

Called by `serving`.
"""

import time
from collections.abc import Iterable
from typing import Any

from nodeagent.gpuworker.driver import GRAIN, Driver
from nodeagent.gpuworker.slabs import Slabs


def copied(
    driver: Driver, stream: Any, slabs: Slabs, runs: Iterable[tuple[int, int]], *, out: bool
) -> dict[str, Any]:
    """Bytes and seconds, for runs of chunks: the first, and how many. What is in them is lost when
    `out`. Raises DriverError, OSError."""
    spans = [span for place, count in runs for span in slabs.spans(place, count)]
    at = driver.allocate(max((size for _, size in spans), default=GRAIN))
    try:
        began = time.monotonic()
        for host, size in spans:
            if out:
                driver.copy_out(host, at, size, stream)
            else:
                driver.copy_in(at, host, size, stream)
        driver.wait(stream)
        return {"bytes": sum(size for _, size in spans), "seconds": time.monotonic() - began}
    finally:
        driver.free(at)
