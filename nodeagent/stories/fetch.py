"""
The story of fetching: a parked workload's contents from the depot back into the cellar, because it
will be asked for and RAM has no room. The depot's copy goes when every byte was read back from the
disk, and not before.

Called by `tiering`, and by recovery with what a dead agent left. Until FETCHED the depot's copy is
the one that counts.
"""

import threading

from kybernate.clients.errors import Refused, Retry
from kybernate.model.verdict import Reason
from nodeagent.disk.pool import NoRoom
from nodeagent.disk.records import Mark, Record
from nodeagent.stories import demote
from nodeagent.stories.demote import course, size_of
from nodeagent.stories.story import Story

READ = "read object"


def fetch(story: Story, ended: threading.Event) -> Record:
    """From PARKED in the depot to PARKED in the cellar. `ended`: somebody wants the workload.
    Raises Undone (parked as before)."""
    record, tools = story.mark(Mark.FETCHING), story.tools
    try:
        with story.watch.phase(READ):
            size = size_of(story, ended)
            told = course(story, READ, ended, size)
            lying = tools.depot.lying(record.uid, record.lowered, told)
            with tools.depot.told():
                tools.cellar.take(record.uid, record.terms.vram, lying, told)
        with story.watch.phase(demote.VERIFY):
            told = course(story, demote.VERIFY, ended, size)
            tools.cellar.verify(record.uid, record.lowered, told)
        story.mark(Mark.FETCHED)
    except (Refused, Retry, OSError) as error:  # Damaged too: what is damaged is the new copy
        undo(story)
        reason = Reason.NO_NVME_ROOM if isinstance(error, NoRoom) else None
        raise story.undone(reason, str(error)) from error
    return finish(story)


def undo(story: Story) -> Record:
    """From FETCHING back to PARKED in the depot."""
    story.tools.cellar.drop(story.record.uid)
    return story.mark(Mark.PARKED)


def finish(story: Story) -> Record:
    """From FETCHED to PARKED in the cellar."""
    story.tools.depot.drop(story.record.uid)
    return story.mark(Mark.PARKED, stored=False)
