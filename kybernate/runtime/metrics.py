"""
Metrics: a registry of the process's own, and its text for /metrics.

Called by: every process. Rules: names begin with `kyb_`; labels have few values (a reason, a verb,
a tier), never a pod's name.
"""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Seconds, from a cached answer to a slow switch.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Makes instruments and prints them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:  # noqa: A002
        """`kyb_<name>_total`; only goes up."""
        return Counter(f"kyb_{name}", help, labels, registry=self.registry)

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:  # noqa: A002
        """`kyb_<name>`; what is now."""
        return Gauge(f"kyb_{name}", help, labels, registry=self.registry)

    def observed(self, name: str, help: str, read: Callable[[], float]) -> Gauge:  # noqa: A002
        """A gauge that calls `read` when it is asked."""
        gauge = self.gauge(name, help)
        gauge.set_function(read)
        return gauge

    def histogram(
        self,
        name: str,
        help: str,  # noqa: A002 - prometheus_client's own word
        labels: Sequence[str] = (),
        buckets: Iterable[float] = SECONDS,
    ) -> Histogram:
        """`kyb_<name>`; seconds by default."""
        return Histogram(
            f"kyb_{name}", help, labels, buckets=tuple(buckets), registry=self.registry
        )

    def text(self) -> bytes:
        """The body of /metrics."""
        return generate_latest(self.registry)
