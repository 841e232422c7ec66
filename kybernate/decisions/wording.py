"""
Placements in words, the same in events, status, logs, replay and answers.

Called by: the extender. Rule: numbers are for people; what the scheduler is told is the constant
text of a `Reason`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kybernate.decisions.placement import Assessment
from kybernate.model.ids import NO_REVISION, NodeName, Revision
from kybernate.model.verdict import Refusal

SHOWN = 3  # nodes in a text: the one that was taken, and two it was taken over


def placed(node: NodeName, ranked: Sequence[Assessment], now: float, revision: Revision) -> str:
    """`node-a 4.1 s = park llama-b 1.2 + resume 0.8; node-b 11.8 s = ...; policy sha256:...`."""
    others = [found for found in ranked if found.node != node]
    chosen = [found for found in ranked if found.node == node]
    shown = [line(found, now) for found in (*chosen, *others)[:SHOWN]]
    return "; ".join([*shown, *_policy(revision)])


def refused(refusals: Mapping[NodeName, Refusal], revision: Revision) -> str:
    """`no node: 3 policy denies this node (quota), 2 node has no seat of this size`."""
    counted = ", ".join(f"{count} {text}" for text, count in histogram(refusals.values()))
    return "; ".join([f"no node: {counted}", *_policy(revision)])


def histogram(refusals: Iterable[Refusal]) -> list[tuple[str, int]]:
    """Each text and how many nodes it stands for, the most frequent first."""
    counts = Counter(_detailed(refusal) for refusal in refusals)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def line(found: Assessment, now: float) -> str:
    """One node: `node-a 4.1 s = park llama-b 1.2 + resume 0.8, policy adds 5.0 s`."""
    text = f"{found.node} {found.estimate(now)}"
    return f"{text}, policy adds {found.penalty:.1f} s" if found.penalty else text


def _detailed(refusal: Refusal) -> str:
    return f"{refusal.reason} ({refusal.detail})" if refusal.detail else str(refusal.reason)


def _policy(revision: Revision) -> list[str]:
    return [] if revision == NO_REVISION else [f"policy {revision}"]
