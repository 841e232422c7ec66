"""
Memory for what goes to a disk and comes from it, or from a peer.

Called by: stores on a disk and at a peer, and pipelines for the buffers they hand to them.
"""

import mmap
from contextlib import suppress


def taken(size: int) -> memoryview:
    """So many zeros, at an address a disk can take them from, of huge pages where the kernel has
    them: a request past the page cache is then a few pieces of memory and not one for each 4 KiB,
    which some disks are asked for one by one (0.56 and 2.3 GB/s were read from a virtio disk), and
    taking a small page costs more than opening what is put into it."""
    room = mmap.mmap(-1, max(1, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        room.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(room)[:size]
