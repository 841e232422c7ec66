"""The story of a first start: verify room, let the held container go. Called by `switching`."""

from pathlib import Path

from nodeagent.disk.records import Mark, Record
from nodeagent.linux import fifo
from nodeagent.linux.fifo import NotReleased
from nodeagent.linux.processes import image, is_same
from nodeagent.mechanisms import BodyGone
from nodeagent.stories import resume
from nodeagent.stories.story import Story, Undone

# After a restart: a process that is still held comes to its FIFO at once.
_AGAIN_S = 2.0


def start(story: Story) -> Record:
    """From HELD to ACTIVE. Raises Undone (held as before), BodyGone."""
    with story.watch.phase("verify room"):
        resume.verify_room(story)
    story.mark(Mark.STARTING, held_image=image(story.record.pid))
    return _let_go(story, story.tools.limits.release_fifo)


def finish(story: Story) -> Record:
    """From STARTING to ACTIVE, for an agent that died in between. Raises Undone, BodyGone.

    Nobody at the FIFO may mean that the process was let go already: then it runs its program, which
    another command line shows.
    """
    try:
        return _let_go(story, _AGAIN_S)
    except Undone:
        if image(story.record.pid) == story.record.held_image:
            raise
        return _runs(story)


def _let_go(story: Story, limit: float) -> Record:
    record = story.record
    try:
        with story.watch.phase("release"):
            fifo.let_go(Path(record.exec_fifo), record.pid, limit)
    except (NotReleased, OSError) as error:
        if not is_same(record.pid, record.pid_started):
            raise BodyGone(str(error)) from error
        story.mark(Mark.HELD)
        raise story.undone(None, str(error)) from error
    return _runs(story)


def _runs(story: Story) -> Record:
    return story.mark(Mark.ACTIVE, active_since=story.tools.clock.now(), wanted_since=None)
