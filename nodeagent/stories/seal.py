"""
The story of sealing: a checkpoint is made of a parked workload, which is parked afterwards.

Called by `sealings`, and by recovery with what a dead agent left. Until SEALED there is a draft
that nobody sees, and everything is undone by forgetting it; from then on there is a checkpoint,
whatever becomes of the workload. Its contents stay where they are all the time, and go from there
into the checkpoint's packs.
Rule: the workload runs only while its processes let go of the driver, behind a closed gate; the
image is made of it frozen.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kybernate.artifacts.facts import Facts, GpuPart
from kybernate.clients.errors import Refused, Retry
from kybernate.model.verdict import Reason
from nodeagent import images
from nodeagent.checkpoints.draft import Draft
from nodeagent.checkpoints.faults import AlreadySealed, NoRoom
from nodeagent.checkpoints.sealed import Sealed
from nodeagent.checkpoints.store import Store
from nodeagent.disk.pool import Slot
from nodeagent.disk.records import Mark, Record
from nodeagent.images import ProcessImages, Unfit, Unfitness, windows
from nodeagent.linux import processes
from nodeagent.mechanisms import BodyGone
from nodeagent.stories.story import Story

IMAGE, GPU = "image", "gpu"
GPU_STATE = "gpu"  # the name under which `Facts.more` has what the mechanism adopts from
# What the driver itself puts there, and `let_go` takes away.
_OF_THE_DRIVER = frozenset({Unfitness.OUTSIDE_SOCKET, Unfitness.DEVICE})
_NAMED = 3  # of what stands in the way, told to people
_LOOK_S = 0.05
_SPARE = 64 * 1024 * 1024  # of an image beside memory and contents


class NotFit(Refused):
    """No image can be made of its processes; the message names the first ones and why."""


Describe = Callable[[Record, images.Body], Facts]
"""What the manifest says of a workload, but for its parts. Raises Refused, Retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What checkpoints are made with."""

    store: Store
    images: ProcessImages
    describe: Describe


def seal(story: Story, means: Means, name: str, *, gold: bool = False) -> tuple[Record, Sealed]:
    """From PARKED to PARKED, and the checkpoint. Raises Undone (parked as before), BodyGone."""
    story.mark(Mark.SEALING, checkpoint=name)
    try:
        sealed = _make(story, means, name, gold)
    except BodyGone:
        raise
    except images.BodyGone as gone:
        if not processes.is_same(story.record.pid, story.record.pid_started):
            raise BodyGone(str(gone)) from gone
        undo(story)
        raise story.undone(Reason.NOT_SEALABLE, str(gone)) from gone
    except (Refused, Retry, OSError, ValueError) as error:
        undo(story)
        raise story.undone(_reason(error), str(error)) from error
    story.mark(Mark.SEALED)
    return finish(story), sealed


def undo(story: Story) -> Record:
    """From SEALING back to PARKED: its draft is forgotten, its contents were only read."""
    story.freeze()
    return story.mark(Mark.PARKED, checkpoint="")


def finish(story: Story) -> Record:
    """From SEALED to PARKED: there is a checkpoint."""
    story.freeze()
    return story.mark(Mark.PARKED, checkpoint="")


def obstacles(body: images.Body, made_by: ProcessImages) -> tuple[Unfit, ...]:
    """What stands in the way of a workload that is not parked yet, the driver's own left out."""
    return tuple(one for one in made_by.unfit(body) if one.reason not in _OF_THE_DRIVER)


def words(unfit: tuple[Unfit, ...]) -> str:
    """For people."""
    more = f"; and {len(unfit) - _NAMED} more" if len(unfit) > _NAMED else ""
    return "; ".join(str(one) for one in unfit[:_NAMED]) + more


def _reason(error: Exception) -> Reason:
    if isinstance(error, NoRoom):
        return Reason.NO_CHECKPOINT_ROOM
    return Reason.NAME_TAKEN if isinstance(error, AlreadySealed) else Reason.NOT_SEALABLE


def body_of(record: Record) -> images.Body:
    """The container as runc knows it. Raises images.BodyGone."""
    fifo = Path(record.exec_fifo)
    return images.body_of(record.container_id, record.pid, record.pid_started, fifo)


def _make(story: Story, means: Means, name: str, gold: bool) -> Sealed:
    body, record = body_of(story.record), story.record
    slot = story.contents()
    kept = slot.parts()
    resident = processes.resident(body.pid) + _SPARE
    need = sum(story.weight(slot, part) for part in kept) + resident
    facts = means.describe(record, body)
    facts = facts.as_gold() if gold else facts
    namespace = record.key.namespace
    with means.store.draft(namespace, name, need, like=facts, plain=resident) as draft:
        with story.watch.phase("let go"):
            state = _let_go(story, means, body)
        story.freeze()
        with story.watch.phase("dump"):
            dumped = means.images.dump(body, draft.folder / IMAGE)
        story.watch.add("dump", 0.0, dumped.size)
        parts = _contents(story, draft, slot)
        with story.watch.phase("sign"):
            more = {**facts.more, GPU_STATE: state}
            cuts = windows.cuts(draft.folder / IMAGE)
            return draft.seal(
                replace(facts, parts=tuple(parts), more=more),
                {f"{IMAGE}/{path}": pieces for path, pieces in cuts.items()},
            )


def _let_go(story: Story, means: Means, body: images.Body) -> str:
    """Until its processes hold nothing that an image cannot have. Raises NotFit, NotThawed."""
    clock, limit = story.tools.clock, story.tools.limits.let_go
    until = clock.monotonic() + limit
    story.thaw()
    state = story.tools.mechanism.let_go(story.body, limit)
    while unfit := means.images.unfit(body):
        if clock.monotonic() >= until:
            raise NotFit(words(unfit))
        story.pause(_LOOK_S)
    return state


def _contents(story: Story, draft: Draft, slot: Slot) -> list[GpuPart]:
    """Where whoever has them cuts them, they are cut: what did not change is there already."""
    kept = slot.parts()
    moved = story.moving("contents", sum(part.size for part in kept))
    cards = story.body.gpus
    parts = []
    with story.watch.phase("contents"):
        for number, part in enumerate(kept):
            path = f"{GPU}/{number}"
            draft.write(path, story.carried(slot, part))
            moved(part.size)
            card = next(place for place, uuid in enumerate(cards) if uuid == part.uuid)
            parts.append(
                GpuPart(name=part.name, card=card, size=part.size, digest=part.digest, path=path)
            )
    return parts
