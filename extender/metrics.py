"""
What the extender measures of itself; served at `/metrics` by `app.py`.

Rule: labels have few values: verbs and constant reasons.
"""

from kybernate.runtime.metrics import CONTENT_TYPE, Metrics

__all__ = ["CONTENT_TYPE", "ExtenderMetrics"]

# Up to the 10 ms that filter and prioritize may take together, finely; beyond that, roughly.
_SECONDS = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.5, 1
)  # fmt: skip
_NODES = (0, 1, 2, 4, 8, 16, 32, 64, 256, 1024, 8192)


class ExtenderMetrics(Metrics):
    """A registry of its own, so that tests can have several."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = self.histogram(
            "extender_request_seconds",
            "Time to answer the scheduler, from the whole request to the whole answer.",
            ["verb"],
            _SECONDS,
        )
        self.malformed = self.counter(
            "extender_malformed", "Requests that could not be read.", ["verb"]
        )
        self.candidates = self.histogram(
            "extender_candidates", "Nodes that filter answered with.", buckets=_NODES
        )
        self.refusals = self.counter(
            "extender_refusals",
            "Nodes refused in answers that left none, by constant reason.",
            ["reason"],
        )
