"""
The story of storing: a parked workload's contents from the cellar into the depot, while its
processes stand still as they did. The cellar's copy goes when every byte was read back from the
object store, and not before.

Called by `tiering`, and by recovery with what a dead agent left. Until STORED the cellar's copy is
the one that counts. What was put stays there for the next time, until the workload leaves the
cellar upwards, or another one needs its room there.
"""

import threading

from kybernate.clients.errors import Refused, Retry
from kybernate.model.verdict import Reason
from nodeagent.disk.pool import Damaged, NoRoom
from nodeagent.disk.records import Mark, Record
from nodeagent.stories.demote import course
from nodeagent.stories.story import Story

WRITE, VERIFY = "write object", "verify object"


def store(story: Story, ended: threading.Event) -> Record:
    """From PARKED in the cellar to PARKED in the depot. `ended`: somebody wants the workload.
    Raises Undone (parked as before), Lost."""
    record, depot = story.mark(Mark.STORING), story.tools.depot
    try:
        with story.watch.phase(WRITE):
            lying = story.tools.cellar.lying(record.uid, record.lowered)
            told = course(story, WRITE, ended)
            depot.keep(record.uid, record.lowered, record.terms.vram, lying, told)
        with story.watch.phase(VERIFY):
            depot.verify(record.uid, record.lowered, course(story, VERIFY, ended))
        story.mark(Mark.STORED, stored=True)
    except Damaged as error:
        undo(story)
        raise story.lost(str(error)) from error
    except (Refused, Retry, OSError) as error:
        undo(story)
        reason = Reason.NO_OBJECT_ROOM if isinstance(error, NoRoom) else None
        raise story.undone(reason, str(error)) from error
    return finish(story)


def undo(story: Story) -> Record:
    """From STORING back to PARKED in the cellar."""
    return story.mark(Mark.PARKED, stored=False)


def finish(story: Story) -> Record:
    """From STORED to PARKED in the depot."""
    story.tools.cellar.drop(story.record.uid)
    return story.mark(Mark.PARKED)
