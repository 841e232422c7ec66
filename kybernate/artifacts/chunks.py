"""
Chunks: how contents are named, sealed and opened under a domain's key.

Called by: whoever seals or wakes. Rule: equal contents have one name and one sealed form in a
domain, so sealing twice, here or elsewhere, is harmless. Rule: contents are given out only when
both their tag and their name are right.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kybernate.artifacts.faults import Unusable
from kybernate.model.checkpoint import Flaw

Bytes = bytes | bytearray | memoryview

CHUNK = 2 * 1024 * 1024  # bytes: how VRAM is parked, too
TAG = 16  # bytes that sealing adds
NAME = 32  # bytes
SECRET = 32  # bytes
_NONCE = bytes(12)  # each chunk has a key of its own
_ZEROS = memoryview(bytes(CHUNK))


@dataclass(frozen=True, slots=True)
class DomainKey:
    """A domain's secret, 32 bytes. Thread safe."""

    secret: bytes = field(repr=False)
    id: str = field(init=False)
    _naming: bytes = field(init=False, repr=False)
    _sealing: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET:
            raise ValueError(f"a domain's key has {SECRET} bytes, not {len(self.secret)}")
        for name, what in (("_naming", "chunk names"), ("_sealing", "chunk contents")):
            object.__setattr__(self, name, derived(f"kybernate checkpoint v1 {what}", self.secret))
        key_id = derived("kybernate checkpoint v1 key id", self.secret)[:8].hex()
        object.__setattr__(self, "id", key_id)

    def name(self, contents: Bytes) -> bytes:
        """What a chunk of these contents is called."""
        return blake3(contents, key=self._naming).digest()

    def seal(self, name: bytes, contents: Bytes, into: memoryview) -> None:
        """Write the sealed chunk; `into` has TAG bytes more than the contents."""
        self._cipher(name).encrypt_into(_NONCE, contents, None, into)

    def open(self, name: bytes, sealed: Bytes, into: memoryview) -> None:
        """Write the contents; `into` has TAG bytes less. Raises Unusable; `into` is rubbish then.

        Both the tag and the name are checked.
        """
        try:
            self._cipher(name).decrypt_into(_NONCE, sealed, None, into)
        except InvalidTag:
            raise Unusable(Flaw.PACK_ALTERED, f"chunk {name.hex()}") from None
        if self.name(into) != name:
            raise Unusable(Flaw.PACK_ALTERED, f"chunk {name.hex()} holds something else")

    def _cipher(self, name: bytes) -> AESGCM:
        return AESGCM(blake3(name, key=self._sealing).digest())


def derived(context: str, secret: bytes) -> bytes:
    """BLAKE3's key derivation, 32 bytes."""
    return blake3(secret, derive_key_context=context).digest()


def cut(pieces: Iterable[Bytes]) -> Iterator[Bytes]:
    """As they come, where they are not larger than a chunk may be: what did not change is cut as it
    was before."""
    for piece in pieces:
        view = memoryview(piece)
        yield from (view[at : at + CHUNK] for at in range(0, len(view), CHUNK))


def is_zero(contents: Bytes) -> bool:
    """Whether a chunk is nothing but zeros; at most CHUNK bytes."""
    return memoryview(contents) == _ZEROS[: len(contents)]


def sizes(size: int) -> Iterator[int]:
    """Of the chunks of a file of `size` bytes."""
    for at in range(0, size, CHUNK):
        yield min(CHUNK, size - at)
