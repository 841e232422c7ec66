"""
May a checkpoint wake here? Compares what it was made in with where it is to wake.

Called by: the store when it opens a checkpoint. Rule: what is not known on one side is not taken
for equal; only two unknowns are. Rule: every difference is told, in an order that never changes.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from kybernate.model.checkpoint import Fingerprint, Flaw

_SHOWN = 5  # of the processor's features


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One reason why not, and what stands on both sides."""

    flaw: Flaw
    detail: str


def differences(
    made: Fingerprint, here: Fingerprint, boot_bound: bool = False
) -> tuple[Difference, ...]:
    """Empty: it may wake here. `boot_bound`: it needs the very boot it was made in."""
    return tuple(_differences(made, here, boot_bound))


def _differences(made: Fingerprint, here: Fingerprint, boot_bound: bool) -> Iterator[Difference]:
    pairs = (
        (Flaw.OTHER_ARCHITECTURE, made.architecture, here.architecture),
        (Flaw.OTHER_KERNEL, series(made.kernel), series(here.kernel)),
        (Flaw.OTHER_IMAGE, made.image, here.image),
        (Flaw.OTHER_COMMAND, shlex.join(made.command), shlex.join(here.command)),
        (Flaw.OTHER_MECHANISM, made.mechanism, here.mechanism),
        (Flaw.OTHER_GPU, made.product, here.product),
        (Flaw.OTHER_DRIVER, made.driver, here.driver),
        (Flaw.OTHER_BOOT, made.boot if boot_bound else "", here.boot if boot_bound else ""),
    )
    for flaw, there, now in pairs:
        if there != now:
            yield Difference(flaw=flaw, detail=f"{there or 'unknown'}, here {now or 'unknown'}")
    missing = sorted(made.cpu - here.cpu)
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        yield Difference(flaw=Flaw.OTHER_CPU, detail=", ".join(missing[:_SHOWN]) + more)


def series(kernel: str) -> str:
    """`6.1` of `6.1.0-18-amd64`: within a series CRIU's images stay readable."""
    return ".".join(kernel.split("-")[0].split(".")[:2])
