"""
What the bytes of a segment are: a counter, and after it a pattern that can be checked.

Called by: `device`, for work that was submitted. Pure, but for the bytearray it is given.
Rule: the counter is the first 8 bytes, little endian; the checksum covers all the rest, so counting
does not change it and any other change does.
"""

import hashlib

COUNTER_BYTES = 8
_WRAP = 1 << 64


def length(size: int, scale: int) -> int:
    """Bytes of content that stand for `size` pretended bytes; never less than the counter."""
    return max(-(-size // scale), COUNTER_BYTES)


def fill(content: bytearray, seed: int) -> None:
    """Write the pattern of `seed` over everything; the counter begins at 0.

    SHAKE's output never repeats itself, so contents that change places are noticed too.
    """
    pattern = hashlib.shake_128(seed.to_bytes(8, "little"))
    content[COUNTER_BYTES:] = pattern.digest(len(content) - COUNTER_BYTES)
    content[:COUNTER_BYTES] = bytes(COUNTER_BYTES)


def counter(content: bytearray) -> int:
    """The counter's value."""
    return int.from_bytes(content[:COUNTER_BYTES], "little")


def increment(content: bytearray, by: int) -> int:
    """Add to the counter; its new value. Wraps as 64 bits do."""
    value = (counter(content) + by) % _WRAP
    content[:COUNTER_BYTES] = value.to_bytes(COUNTER_BYTES, "little")
    return value


def checksum(content: bytearray) -> str:
    """BLAKE2b of all after the counter, hexadecimal."""
    return digest(memoryview(content)[COUNTER_BYTES:])


def digest(content: bytearray | memoryview) -> str:
    """BLAKE2b of everything given, hexadecimal."""
    return hashlib.blake2b(content, digest_size=32).hexdigest()
