"""
What a copy in sends.

Called by: `Driver.copy_in`, and through it a thread of gRPC's, which swallows errors and may still
read when the call is over. So errors are kept, and closing waits for the read under way.
"""

import threading
from collections.abc import Iterable, Iterator

from kybernate.clients.pb import simgpu_pb2 as pb

# 512 KiB of content a message: as the device sends them, far below gRPC's limit of 4 MiB.
CHUNK_BYTES = 512 * 1024


class Contents:
    """A segment's contents on their way in. `failed` is what reading them raised."""

    def __init__(self, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        self.failed: Exception | None = None
        self._chunks = iter(chunks)
        self._reading = threading.Lock()
        self._closed = False

    def messages(self, ref: pb.SegmentRef) -> Iterator[pb.CopyInRequest]:
        """The segment's name, its contents, and a word of regret when they cannot be read."""
        yield pb.CopyInRequest(segment=ref)
        while (chunk := self._read()) is not None:
            view = memoryview(chunk)
            for start in range(0, len(view), CHUNK_BYTES):
                yield pb.CopyInRequest(content=bytes(view[start : start + CHUNK_BYTES]))
        if self.failed:
            yield pb.CopyInRequest(abandon=True)

    def close(self) -> None:
        """Nothing is read after this."""
        with self._reading:
            self._closed = True

    def _read(self) -> bytes | bytearray | memoryview | None:
        with self._reading:
            if self._closed:
                return None
            try:
                return next(self._chunks, None)
            except Exception as error:
                self.failed = error
                return None
