"""What a workload's own program tells of itself: where it does, and what its numbers are called."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kybernate.model.workload import Endpoint, WorkloadClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """By policy's data. `requests` are numbers of requests that run or wait now, `steps` count
    steps of training that are done; `at` is where pods of a class tell, when they do not say."""

    requests: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    at: Mapping[WorkloadClass, Endpoint] = field(default_factory=dict)


UNKNOWN = Engines()
"""Before policy ever answered: no name of theirs is known."""
