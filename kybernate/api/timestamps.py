"""
Times as Kubernetes writes them (RFC 3339, UTC) to seconds since the epoch and back.

`metav1.Time` has whole seconds (`rfc3339`), `metav1.MicroTime` six decimals (`rfc3339_micro`).
"""

import re
from datetime import UTC, datetime

EXPECTED = "a time like 2026-01-31T12:00:00Z"

_SHAPE = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def rfc3339(epoch: float) -> str:
    """`2026-01-31T12:00:00Z`, cut to whole seconds."""
    return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(epoch: float) -> str:
    """`2026-01-31T12:00:00.123456Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch. Raises ValueError with what is accepted as its text."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(EXPECTED)
    day, time, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        raise ValueError(EXPECTED) from None
    return whole.timestamp() + float(fraction or 0)
