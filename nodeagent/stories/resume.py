"""
The story of resuming: verify room, thaw, copy in, verify contents, unlock. Then the copy may go.
Contents come from the pool, or straight out of cellar or depot where the mechanism takes them so.

Called by `switching`, by parking that has to come back, and by recovery.
Rule: it is never tried where it could run out of memory (a driver does not forgive that): room is
what the inventory shows. Rule: the copy is freed only after what is in VRAM was verified.
"""

import threading

from kybernate.clients.errors import Refused, Retry
from kybernate.model.verdict import Reason
from nodeagent.disk.pool import Damaged, Kept, Slot
from nodeagent.disk.records import Mark, Record
from nodeagent.lowered import Lowered
from nodeagent.mechanisms import BodyGone, CardFull, Stands
from nodeagent.stories import promote
from nodeagent.stories.story import Story

# How often the inventory is asked while VRAM that should be free is not: a tenth of a second is
# what a driver takes to clear a process away.
_LOOK_AGAIN = 0.1
_NEVER = threading.Event()


def resume(story: Story) -> Record:
    """From PARKED to ACTIVE. Raises Undone (parked as before), Lost, BodyGone."""
    _within_reach(story)
    with story.watch.phase("verify room"):
        verify_room(story)
    story.mark(Mark.RESUMING)
    try:
        _fill(story)
        story.mark(Mark.VERIFIED)
    except BodyGone:
        raise
    except Damaged as error:
        undo(story)
        raise story.lost(str(error)) from error
    except (Refused, Retry, OSError) as error:
        undo(story)
        reason = Reason.VRAM_NOT_FREE if isinstance(error, CardFull) else None
        raise story.undone(reason, str(error)) from error
    return finish(story)


def finish(story: Story) -> Record:
    """From VERIFIED to ACTIVE. Raises Lost, BodyGone."""
    try:
        with story.watch.phase("unlock"):
            story.unlock()
    except BodyGone:
        raise
    except (Refused, Retry) as error:
        raise story.lost(f"it stays locked: {error}") from error
    now = story.tools.clock.now()
    record = story.mark(Mark.ACTIVE, active_since=now, wanted_since=None, lowered="", stored=False)
    story.tools.pool.retire(record.uid)
    story.drop_below()
    return record


def reach(story: Story) -> Record:
    """Before anybody is parked for it: whether the depot gives what it has of it. What comes by way
    of the pool comes now, while others work. It may have come up since it was planned: then nobody
    is asked. Raises Undone (parked as before), Lost."""
    try:
        with story.watch.phase("reach"):
            if story.record.stored:
                story.tools.depot.reach(story.record.uid, story.record.lowered)
    except (Refused, Retry, OSError) as error:
        raise story.undone(Reason.CONTENTS_AWAY, str(error)) from error
    _within_reach(story)
    return story.record


def _within_reach(story: Story) -> None:
    """In the pool, where its mechanism takes nothing from elsewhere. Raises Undone, Lost."""
    if story.record.lowered and story.tools.mechanism.stands(story.body) is not Stands.SLOT:
        promote.promote(story)


def undo(story: Story) -> Record:
    """From RESUMING back to PARKED: what came in is given back. Raises Lost, BodyGone."""
    try:
        story.release_all()
    except BodyGone:
        raise
    except (Refused, Retry) as error:
        raise story.lost(f"half of it is in VRAM and cannot be released: {error}") from error
    story.freeze()
    return story.mark(Mark.PARKED)


def refill(story: Story) -> Record:
    """From COPIED back to ACTIVE, for parking that cannot go on. Raises Lost, BodyGone."""
    try:
        _fill(story)
    except BodyGone:
        raise
    except (Refused, Retry, OSError) as error:
        raise story.lost(f"neither parked nor back: {error}") from error
    return finish(story)


def verify_room(story: Story) -> None:
    """Until the cards show room for all that is booked. Raises Undone after the time limit."""
    clock, cards = story.tools.clock, story.tools.cards
    until = clock.monotonic() + story.tools.limits.room
    while True:
        try:
            short = [u for u, size in story.need.items() if cards.free(u) < size]
        except Retry as error:
            raise story.undone(Reason.VRAM_NOT_FREE, f"inventory is away: {error}") from error
        if not short:
            return
        if clock.monotonic() >= until:
            raise story.undone(Reason.VRAM_NOT_FREE, _shortage(story, short[0]))
        clock.wait(_NEVER, _LOOK_AGAIN)


def _shortage(story: Story, uuid: str) -> str:
    need = next(size for card, size in story.need.items() if card == uuid)
    return f"{need / 2**30:.1f} GiB needed on {uuid}, the inventory shows less"


def _fill(story: Story) -> None:
    """Every part back in VRAM, each verified. Parts that are there already are checked only."""
    mechanism = story.tools.mechanism
    story.thaw()
    slot = story.contents(hurried=True)
    kept = slot.parts()
    there = {part.name: part.digest for part in mechanism.parts(story.body) if part.backed}
    moved = story.moving("copy in", sum(part.size for part in kept))

    def copied(part: Kept) -> None:
        digest = there.get(part.name)
        if digest != part.digest:
            digest = mechanism.copy_in(story.body, part, slot, moved)
        _compare(slot, part, digest)

    with story.watch.phase("copy in"):
        story.by_card(kept, copied)
    if isinstance(slot, Lowered):
        cards = len({part.uuid for part in kept}) or 1
        story.watch.part("copy in", "fetch", slot.waited / cards)


def _compare(slot: Slot, part: Kept, digest: str) -> None:
    """What is in VRAM must be what was copied out; else find out whose fault it is."""
    if digest == part.digest:
        return
    slot.check(part)  # raises Damaged when the copy is wrong
    raise Refused(f"part {part.name} arrived changed in VRAM")
