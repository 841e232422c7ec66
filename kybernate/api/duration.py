"""
Durations as Go writes them: `1h30m`, `90s`, `250ms`.

Rule: a number without a unit is refused, so that nobody has to guess what it counts.
"""

import re

EXPECTED = "a duration with units, like 90s, 5m or 1h30m"

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(ns|us|µs|ms|s|m|h)", re.ASCII)
_LONGEST = 64  # characters; a text from anybody's annotation


def parse_seconds(text: str) -> float:
    """Seconds, never negative. Raises ValueError with what is accepted as its text."""
    text = text.strip()
    parts = list(_PART.finditer(text)) if len(text) <= _LONGEST else []
    if not parts or "".join(part.group() for part in parts) != text:
        raise ValueError(EXPECTED)
    return sum(float(part.group(1)) * _UNITS[part.group(2)] for part in parts)


def format_seconds(seconds: float) -> str:
    """The shortest form that reads back the same to a millisecond: `1h30m`, `1.5s`, `0s`."""
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    parts = [f"{hours}h"] * bool(hours) + [f"{minutes}m"] * bool(minutes)
    if rest or not parts:
        parts.append(f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)
