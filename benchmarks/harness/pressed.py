"""
bf16 weights made smaller without loss on a processor: how much, and how fast one core does it.

Called by: `benchmarks.tiers`. The weights are a stand-in: normally distributed, as those of trained
layers are about, cut to bf16; real ones have some structure more. Rates are bytes of weights for
each second of processor time, so that who else is on the machine counts little.
"""

import random
import time
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import zstandard

from kybernate.artifacts.chunks import CHUNK

_SIGMA = 0.02  # of a layer of some thousands of inputs
_ROUNDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """A way: bytes that are left of a byte, and bytes a second of one core, there and back."""

    name: str
    left: float
    press: float
    back: float


def weights(seed: int = 7) -> bytes:
    """A chunk of them."""
    drawn = random.Random(seed)
    raw = array("f", (drawn.gauss(0.0, _SIGMA) for _ in range(CHUNK // 2))).tobytes()
    chunk = bytearray(CHUNK)
    chunk[0::2], chunk[1::2] = raw[2::4], raw[3::4]
    return bytes(chunk)


def measured() -> list[Pressed]:
    """Every way, on one chunk."""
    chunk = weights()
    quick, back = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    return [
        _measured("zstd", chunk, quick.compress, back.decompress),
        _measured("planes, zstd", chunk, *_planes(quick.compress, back.decompress)),
        _measured("planes, Huffman", chunk, *_planes(_huffman, zlib.decompress)),
    ]


Way = Callable[[bytes], bytes]


def _planes(press: Way, back: Way) -> tuple[Way, Way]:
    """Signs and exponents apart from mantissas, which look random and stay as they are."""

    def split(chunk: bytes) -> bytes:
        return chunk[0::2] + press(chunk[1::2])

    def joined(pressed: bytes) -> bytes:
        chunk = bytearray(CHUNK)
        chunk[0::2], chunk[1::2] = pressed[: CHUNK // 2], back(pressed[CHUNK // 2 :])
        return bytes(chunk)

    return split, joined


def _huffman(plane: bytes) -> bytes:
    one = zlib.compressobj(1, zlib.DEFLATED, strategy=zlib.Z_HUFFMAN_ONLY)
    return one.compress(plane) + one.flush()


def _measured(name: str, chunk: bytes, press: Way, back: Way) -> Pressed:
    pressed = press(chunk)
    if back(pressed) != chunk:
        raise AssertionError(f"{name} loses something")
    return Pressed(
        name=name,
        left=len(pressed) / len(chunk),
        press=_rate(lambda: press(chunk)),
        back=_rate(lambda: back(pressed)),
    )


def _rate(work: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(_ROUNDS):
        work()
    return _ROUNDS * CHUNK / (time.process_time() - began)
