"""
Kubernetes quantities of bytes: `40Gi`, `1.5G`, `2e9`.

Rule: every suffix of `k8s.io/apimachinery/pkg/api/resource` is read; what is less than a byte is
rounded up, as the API server does; negative sizes are refused.
"""

import re
from decimal import ROUND_CEILING, Decimal

EXPECTED = "a size like 40Gi, 512Mi or 80G, not negative and below 8Ei"

_BINARY: dict[str, int] = {
    suffix: 1024**power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)
}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
# Lengths are bounded because the text may come from anybody's annotation.
_SHAPE = re.compile(
    r"\+?(?P<number>\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
_LIMIT = 2**63 - 1  # Kubernetes keeps quantities in an int64


def parse_bytes(text: str | int) -> int:
    """Bytes. Raises ValueError with what is accepted as its text."""
    amount = _amount(str(text))
    if amount > _LIMIT:
        raise ValueError(EXPECTED)
    return int(amount.to_integral_value(rounding=ROUND_CEILING))


def parse_count(text: str | int) -> int:
    """A whole number of things, like the seats of a pod. Raises ValueError likewise."""
    amount = _amount(str(text))
    if amount > _LIMIT or amount != amount.to_integral_value():
        raise ValueError("a whole number, not negative")
    return int(amount)


def format_bytes(size: int) -> str:
    """The shortest exact form with a binary suffix: `40Gi`, `1536Mi`, `1000`."""
    for suffix, unit in reversed(_BINARY.items()):
        if size and size % unit == 0:
            return f"{size // unit}{suffix}"
    return str(size)


def readable_bytes(size: float) -> str:
    """For people, at most one decimal: `40 GiB`, `1.5 MiB`."""
    for suffix, unit in reversed(_BINARY.items()):
        if size >= unit:
            return f"{size / unit:.1f}".removesuffix(".0") + f" {suffix}B"
    return f"{size:.0f} B"


def _amount(text: str) -> Decimal:
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(EXPECTED)
    number, suffix, exponent = match.group("number", "suffix", "exponent")
    if suffix in _BINARY:
        return Decimal(number) * Decimal(_BINARY[suffix])
    power = int(exponent) if exponent else _DECIMAL[suffix or ""]
    return Decimal(number).scaleb(power)
