"""
The story of demoting: a parked workload's contents from the pool into the cellar, while its
processes stand still as they did. The pool's room is given back when the cellar's copy is durable
and every byte of it was read back from the disk, and not before.

Called by `tiering`, and by recovery with what a dead agent left. Until DEMOTED the pool's copy is
the one that counts, and everything is undone by forgetting the other.
"""

import secrets
import threading

from kybernate.clients.errors import Refused, Retry
from kybernate.ladder.progress import Course, Progress
from kybernate.model.verdict import Reason
from nodeagent.cellar import Content
from nodeagent.disk.pool import Damaged, Kept, NoRoom, Slot
from nodeagent.disk.records import Mark, Record
from nodeagent.mechanisms import Stands
from nodeagent.stories.story import Story

WRITE, VERIFY = "write nvme", "verify nvme"
_TOKEN = 16  # bytes


def demote(story: Story, ended: threading.Event) -> Record:
    """From PARKED in the pool to PARKED in the cellar. `ended`: somebody wants the workload.
    Raises Undone (parked as before), Lost."""
    if story.tools.mechanism.stands(story.body) is Stands.PROCESS:
        raise story.undone(Reason.NOT_DEMOTABLE, "its contents are with its own processes")
    token = secrets.token_hex(_TOKEN)
    story.mark(Mark.DEMOTING)
    try:
        _write(story, token, ended)
    except Damaged as error:
        undo(story)
        raise story.lost(str(error)) from error
    except (Refused, Retry, OSError) as error:
        undo(story)
        raise story.undone(_reason(error), str(error)) from error
    try:
        with story.watch.phase(VERIFY):
            story.tools.cellar.verify(story.record.uid, token, course(story, VERIFY, ended))
        story.mark(Mark.DEMOTED, lowered=token)
    except (Refused, Retry, OSError) as error:  # Damaged too: what is damaged is the new copy
        undo(story)
        raise story.undone(None, str(error)) from error
    return finish(story)


def undo(story: Story) -> Record:
    """From DEMOTING back to PARKED in the pool."""
    story.drop_below()
    return story.mark(Mark.PARKED, lowered="", stored=False)


def finish(story: Story) -> Record:
    """From DEMOTED to PARKED in the cellar."""
    story.tools.pool.free(story.record.uid)
    return story.mark(Mark.PARKED)


def size_of(story: Story, ended: threading.Event) -> int:
    """The card's bytes of what it has, asked for where that is."""
    return sum(part.size for part in story.contents(ended=ended).parts())


def course(story: Story, what: str, ended: threading.Event, size: int | None = None) -> Course:
    """How far it is, in the card's bytes, for a stopwatch and for whoever listens."""
    size = size_of(story, ended) if size is None else size
    moved, told = story.moving(what, size), 0

    def tell(progress: Progress) -> None:
        nonlocal told
        done = size * progress.done // max(1, progress.total)
        moved(done - told)
        told = done

    return Course(story.tools.clock, tell, ended)


def _write(story: Story, token: str, ended: threading.Event) -> None:
    slot, uid = story.contents(), story.record.uid
    contents = [_content(story, slot, part) for part in slot.parts()]
    writing = course(story, WRITE, ended)
    writing.expect(sum(one.weight for one in contents))
    with story.watch.phase(WRITE):
        story.tools.cellar.keep(uid, token, contents, writing)


def _content(story: Story, slot: Slot, part: Kept) -> Content:
    return Content(part, story.weight(slot, part), story.carried(slot, part))


def _reason(error: Exception) -> Reason | None:
    return Reason.NO_NVME_ROOM if isinstance(error, NoRoom) else None
