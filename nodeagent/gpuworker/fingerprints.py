"""
Fingerprints of VRAM: 16 bytes for each 2 MiB, made by the card itself (`fingerprint.cu`).

Called by `parts`. A key is random, and that of a sharing domain: copies of one domain can be
compared. It is stored beside the fingerprints, so that a resume, in whatever process, hashes as the
park did.
"""

import ctypes
import secrets
import struct
from importlib.resources import files
from typing import Any

from nodeagent.gpuworker.driver import GRAIN, Driver
from nodeagent.gpuworker.slabs import mapped

SIZE = 16
_PRIME = 2**61 - 1
_WORDS, _POINTS, _THREADS = 68, 4, 512
KEY_SIZE = _WORDS * 4 + _POINTS * 8


def new_key() -> bytes:
    """A fresh random key."""
    points = (1 + secrets.randbelow(_PRIME - 1) for _ in range(_POINTS))
    return secrets.token_bytes(_WORDS * 4) + struct.pack(f"<{_POINTS}Q", *points)


class Fingerprints:
    """The kernel, loaded once."""

    def __init__(self, driver: Driver) -> None:
        """Raises DriverError."""
        self._driver = driver
        image = (files(__package__) / "fingerprint.ptx").read_bytes() + b"\0"
        self._kernel = driver.kernel(image, b"kyb_fingerprint")
        self._zeros: dict[bytes, bytes] = {}

    def take(self, at: int, size: int, into: int, key: bytes, stream: Any) -> None:
        """Fingerprint `size` bytes (a multiple of 2 MiB) into memory that the card can write to,
        some time."""
        self._driver.launch(
            self._kernel,
            size // GRAIN,
            _THREADS,
            stream,
            ctypes.c_uint64(at),
            ctypes.c_uint64(into),
            (ctypes.c_char * KEY_SIZE).from_buffer_copy(key),
        )

    def of_zeros(self, key: bytes, stream: Any) -> bytes:
        """The fingerprint of a chunk of zeros. Raises DriverError."""
        if key not in self._zeros:
            chunk, into = self._driver.allocate(GRAIN), self._driver.allocate(SIZE)
            try:
                self._driver.set_zero(chunk, GRAIN, stream)
                self.take(chunk, GRAIN, into, key, stream)
                found = ctypes.create_string_buffer(SIZE)
                self._driver.copy_out(ctypes.addressof(found), into, SIZE, stream)
                self._driver.wait(stream)
                self._zeros[key] = found.raw
            finally:
                self._driver.free(chunk)
                self._driver.free(into)
        return self._zeros[key]


class Room:
    """Host memory that the card writes fingerprints to by itself: copied out they would wait for
    the large copies before them. Given back to us, kept for the next."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> tuple[int, int]:
        """Address and size of at least `size` bytes. Raises DriverError, OSError."""
        for one in sorted(self._free, key=lambda one: one[1]):
            if one[1] >= size:
                self._free.remove(one)
                return one
        size = -(-size // GRAIN) * GRAIN  # 256 GiB's fingerprints
        at = mapped(-1, size)
        self._driver.pin(at, size)
        return at, size

    def give(self, one: tuple[int, int]) -> None:
        """It is free again."""
        self._free.append(one)
