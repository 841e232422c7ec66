"""
What is asked, when, by whom: out of the sample of a trace, or shuffled over many models. Pure.

Called by: `__main__`, tests. A request belongs to a client; a client's requests are in the order of
its list, and each model's are spread over all clients.
"""

import csv
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE = Path(__file__).with_name("trace.csv")
_MOST_TOKENS = 400  # of an answer: one long one would keep a demo's GPU for its whole minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`at` is seconds after the start; `tag` is in its prompt, and in its answer again."""

    tag: str
    client: int
    at: float
    model: str
    tokens: int


def models(count: int) -> tuple[str, ...]:
    """Names of so many models."""
    return tuple(f"model-{chr(97 + n)}" if count <= 26 else f"model-{n:02d}" for n in range(count))


def of_trace(names: Sequence[str], seconds: float, clients: int) -> list[Request]:
    """The sample, played in so many seconds. The busiest model of the trace is the first of
    `names`, and so on; raises ValueError where the trace has fewer models."""
    with SAMPLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    busiest = _by_count(row["model"] for row in rows)
    if len(names) > len(busiest):
        raise ValueError(f"{len(names)} models: the sample has {len(busiest)}")
    called = dict(zip(busiest, names, strict=False))
    last = max(float(row["t_s"]) for row in rows)
    return [
        Request(
            tag=f"r{number}",
            client=number % clients,
            at=float(row["t_s"]) * seconds / last,
            model=called[row["model"]],
            tokens=max(1, min(_MOST_TOKENS, int(row["output_tokens"]))),
        )
        for number, row in enumerate(rows)
        if row["model"] in called
    ]


def shuffled(names: Sequence[str], count: int, clients: int, seed: int = 1) -> list[Request]:
    """So many requests, each to any of the models, all as soon as their clients may."""
    dice = random.Random(seed)
    return [
        Request(tag=f"r{n}", client=n % clients, at=0.0, model=dice.choice(names), tokens=1)
        for n in range(count)
    ]


def _by_count(values: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts, key=lambda value: (-counts[value], value))
