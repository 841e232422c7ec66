"""
The story of parking: lock, copy out, release, freeze. Contents are never in fewer than one place.

Called by `switching`, and by recovery with what a dead agent left. Before COPIED everything can be
undone by unlocking; after it the pool's copy is whole, so the story goes on to the end, or comes
back by resuming from that copy.
"""

from kybernate.clients.errors import Refused, Retry
from kybernate.model.verdict import Reason
from nodeagent.disk.pool import Kept, NoRoom, Slot
from nodeagent.disk.records import Mark, Record
from nodeagent.mechanisms import BodyGone, Part
from nodeagent.stories import resume
from nodeagent.stories.story import JournalAway, Story


def park(story: Story) -> Record:
    """From ACTIVE to PARKED. Raises Undone, Lost, BodyGone."""
    slot = _reserve(story)
    try:
        story.mark(Mark.PARKING)
    except JournalAway:
        story.tools.pool.retire(story.record.uid)
        raise
    try:
        with story.watch.phase("lock"):
            story.tools.mechanism.lock(story.body, story.tools.limits.drain)
        _copy_out(story, slot)
        story.mark(Mark.COPIED)
    except BodyGone:
        raise
    except (Refused, Retry, OSError) as error:
        undo(story)
        raise story.undone(Reason.NOT_PARKABLE, str(error)) from error
    return finish(story)


def undo(story: Story) -> Record:
    """From PARKING back to ACTIVE: VRAM was never touched. Raises Lost, BodyGone."""
    story.tools.pool.retire(story.record.uid)
    try:
        story.unlock()
    except BodyGone:
        raise
    except (Refused, Retry) as error:
        raise story.lost(f"it stays locked: {error}") from error
    return story.mark(Mark.ACTIVE)


def finish(story: Story) -> Record:
    """From COPIED to PARKED. Raises Undone (active again), Lost, BodyGone."""
    try:
        with story.watch.phase("release"):
            story.release_all()
    except BodyGone:
        raise
    except (Refused, Retry) as error:
        resume.refill(story)
        raise story.undone(Reason.NOT_PARKABLE, f"VRAM was not released: {error}") from error
    story.freeze()
    return story.mark(Mark.PARKED, active_since=None)


def _reserve(story: Story) -> Slot:
    """Room for what it holds, or what it may hold if that is more, before anything begins."""
    try:
        held = max(story.tools.cards.held_by(story.body), sum(story.need.values()))
        return story.tools.pool.reserve(story.record.uid, held)
    except NoRoom as error:
        raise story.undone(Reason.NO_HOST_MEMORY, str(error)) from error
    except (Refused, Retry, OSError) as error:
        raise story.undone(Reason.NOT_PARKABLE, str(error)) from error


def _copy_out(story: Story, slot: Slot) -> None:
    parts = tuple(p for p in story.tools.mechanism.parts(story.body) if p.backed)
    moved = story.moving("copy out", sum(part.size for part in parts))

    def copied(part: Part) -> Kept:
        one = story.tools.mechanism.copy_out(story.body, part, slot, moved)
        if one.digest != part.digest:
            raise Refused(f"part {part.name} changed while it was copied")
        return one

    with story.watch.phase("copy out"):
        kept = story.by_card(parts, copied)
    with story.watch.phase("write down"):
        slot.seal(tuple(kept))
