"""
What all signals together say of a workload. Pure.

Called by: the agent, with one `Demand` a signal.
"""

from collections.abc import Iterable

from kybernate.model.demand import Demand


def joined(demands: Iterable[Demand]) -> Demand:
    """One word of many, in any order.

    Wanted or busy where any signal says so; idle for as long as the most recent sign of life is
    old, and not at all while one is busy; unknown while one who should know cannot be asked: what
    is missing protects. Signals that count the same requests from different sides
    are not added up: the largest count stands.
    """
    said = tuple(demands)
    wanted = any(one.wanted for one in said)
    busy = any(one.busy for one in said)
    counts = [one.in_flight for one in said if one.in_flight is not None]
    ages = [one.idle_for for one in said if one.idle_for is not None]
    doubt = any(one.doubt for one in said)
    quiet = None if doubt else min(ages, default=None)
    return Demand(
        wanted=wanted,
        busy=busy,
        in_flight=max(counts, default=None),
        idle_for=0.0 if busy else quiet,
        doubt=doubt,
        why=_why(said, wanted, busy),
    )


def _why(said: tuple[Demand, ...], wanted: bool, busy: bool) -> str:
    """The words of those that decided, each once; asking before working."""
    telling = [one for one in said if one.why and one.wanted]
    telling += [one for one in said if one.why and one.busy and not one.wanted]
    if not wanted and not busy:
        telling = [one for one in said if one.why]
    return "; ".join(sorted({one.why for one in telling}))
