"""
The port to policy: its questions, and which policy would answer them.

Asked by: extender (placement), webhook (admission, sharing), node agent (preemption,
sharing, timeslice, tiering), controller (retention).
Rule 1: a verdict or a Refusal, never an exception and never None: policy that is away, undefined
or unreadable is `Refusal(POLICY_UNAVAILABLE, detail)`, and undefined protects.
Rule 2: a verdict says what policy wants; invariants are the caller's, whatever it says.
Implementations: `clients/opa.py`, `testing/policy.py`; both pass
`tests/policies/test_policy_port*`.
"""

from typing import Protocol

from kybernate.model.callers import Callers
from kybernate.model.engines import Engines
from kybernate.model.ids import Revision
from kybernate.model.policy import (
    AdmissionQuestion,
    AdmissionVerdict,
    PlacementQuestion,
    PlacementVerdict,
    PreemptionQuestion,
    PreemptionVerdict,
    RetentionQuestion,
    RetentionVerdict,
    SharingQuestion,
    SharingVerdict,
    TieringQuestion,
    TieringVerdict,
    TimesliceQuestion,
    TimesliceVerdict,
)
from kybernate.model.storelimits import StoreLimits
from kybernate.model.verdict import Refusal


class Policy(Protocol):
    """Whoever answers. Every method is safe to call from several threads and returns quickly."""

    def admission(self, question: AdmissionQuestion) -> AdmissionVerdict | Refusal:
        """Whether a pod may have its seat, and the annotations it is given."""
        ...

    def placement(self, question: PlacementQuestion) -> PlacementVerdict | Refusal:
        """Which classes of nodes are denied, and what the others cost."""
        ...

    def preemption(self, question: PreemptionQuestion) -> PreemptionVerdict | Refusal:
        """Whether `incoming` may take the GPU from `holder`."""
        ...

    def timeslice(self, question: TimesliceQuestion) -> TimesliceVerdict | Refusal:
        """Whose turn it is. A holder that must go still needs its preemption verdict."""
        ...

    def tiering(self, question: TieringQuestion) -> TieringVerdict | Refusal:
        """Whether a holder that nobody asks for may leave its GPU."""
        ...

    def retention(self, question: RetentionQuestion) -> RetentionVerdict | Refusal:
        """Which checkpoints of a workload are kept. Whatever is not said keeps."""
        ...

    def sharing(self, question: SharingQuestion) -> SharingVerdict | Refusal:
        """Whether a namespace may wake from another's gold image. Whatever is not said denies."""
        ...

    def ignored_callers(self) -> Callers | Refusal:
        """Whose connections to a workload say nothing about demand."""
        ...

    def engines(self) -> Engines | Refusal:
        """What workloads' own metrics are called, and where they are told."""
        ...

    def store_limits(self) -> StoreLimits | Refusal:
        """How much of checkpoints the object store may keep."""
        ...

    def revision(self) -> Revision | None:
        """The policies and data that answer now; None where there are none or nobody answers."""
        ...
