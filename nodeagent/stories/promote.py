"""
The story of promoting: a parked workload's contents from cellar or depot back into the pool, before
anybody asks for them or because its mechanism takes them from nowhere else. The copy below goes
when the pool's is sealed.

Called by `tiering`, by resuming, and by recovery with what a dead agent left. Until PROMOTED the
copy below is the one that counts.
"""

import threading
from collections.abc import Iterator

from kybernate.artifacts.chunks import Bytes
from kybernate.clients.errors import Refused, Retry
from kybernate.model.verdict import Reason
from nodeagent.disk.pool import Damaged, Kept, NoRoom, Slot
from nodeagent.disk.records import Mark, Record
from nodeagent.mechanisms import Stands
from nodeagent.stories.story import Story

READ = "read nvme"
READ_STORED = "read object"
_NEVER = threading.Event()


class CalledOff(Refused):
    """Somebody wants the workload: its contents can be had from where they are."""


def promote(story: Story, ended: threading.Event = _NEVER) -> Record:
    """From PARKED below the pool to PARKED in it. Raises Undone (parked as before), Lost."""
    below, what = _below(story, ended)
    try:
        kept = below.parts()
        size = sum(part.size for part in kept)
        slot = story.tools.pool.reserve(story.record.uid, size)
    except Damaged as error:
        raise story.lost(str(error)) from error
    except (Refused, Retry, OSError) as error:
        raise story.undone(_reason(error), str(error)) from error
    try:
        story.mark(Mark.PROMOTING)
        with story.watch.phase(what):
            slot.seal(tuple(_read(story, below, slot, ended)))
        story.mark(Mark.PROMOTED)
    except Damaged as error:
        undo(story)
        raise story.lost(str(error)) from error
    except (Refused, Retry, OSError) as error:
        undo(story)
        raise story.undone(_reason(error), str(error)) from error
    return finish(story)


def undo(story: Story) -> Record:
    """From PROMOTING back to PARKED below."""
    story.tools.pool.free(story.record.uid)
    return story.mark(Mark.PARKED)


def finish(story: Story) -> Record:
    """From PROMOTED to PARKED in the pool."""
    story.drop_below()
    return story.mark(Mark.PARKED, lowered="", stored=False)


def _below(story: Story, ended: threading.Event) -> tuple[Slot, str]:
    """Where it comes from, and how that is told. Who cannot be called off is waited for."""
    what = READ_STORED if story.record.stored else READ
    return story.contents(hurried=ended is _NEVER, ended=ended), what


def _read(story: Story, below: Slot, slot: Slot, ended: threading.Event) -> list[Kept]:
    kept = below.parts()
    what = READ_STORED if story.record.stored else READ
    moved = story.moving(what, sum(part.size for part in kept))
    in_files = story.tools.mechanism.stands(story.body) is Stands.SLOT

    def brought(part: Kept) -> Kept:
        content, digest = story.tools.pool.bulk.brought(
            slot, part.name, _until(below.read(part.name), ended)
        )
        if in_files and (content, digest) != (part.content, part.digest):
            raise Damaged(f"part {part.name} is not what was demoted")
        moved(part.size)
        return Kept(name=part.name, uuid=part.uuid, size=part.size, content=content, digest=digest)

    return story.by_card(kept, brought)


def _until(chunks: Iterator[Bytes], ended: threading.Event) -> Iterator[Bytes]:
    for chunk in chunks:
        if ended.is_set():
            raise CalledOff("somebody wants it")
        yield chunk


def _reason(error: Exception) -> Reason | None:
    return Reason.NO_HOST_MEMORY if isinstance(error, NoRoom) else None
