"""
After a restart: what the journal says, compared with processes and VRAM, and ended or undone.

Called once, before anything is decided. Afterwards every workload is in exactly one state, and no
VRAM is without an owner. Nothing here needs the API server.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from kybernate.clients.errors import Refused, Retry
from kybernate.model.gpu import Group
from kybernate.model.ids import GpuUuid, GroupName
from kybernate.runtime.logs import get_logger
from nodeagent.depot import Named
from nodeagent.disk.journal import Corrupt, FileJournal
from nodeagent.disk.pool import Damaged, Slot
from nodeagent.disk.records import Mark, Record
from nodeagent.linux import processes
from nodeagent.lives.life import Life
from nodeagent.lives.phases import Stopwatch
from nodeagent.mechanisms import Body, BodyGone
from nodeagent.stories import demote, fetch, park, promote, resume, seal, start, store
from nodeagent.stories.story import Lost, Story, Tools, Undone

_DUMP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was found. `lost` pairs a life with why it is quarantined; `stranded` live on groups
    that are not here any more, or on other cards than these: nothing of theirs is touched."""

    lives: tuple[Life, ...]
    corrupt: tuple[Corrupt, ...]
    lost: tuple[tuple[Life, str], ...] = ()
    stranded: tuple[Record, ...] = ()


def recover(
    journal: FileJournal,
    tools: Tools,
    groups: Mapping[GroupName, Group],
    uuids: Mapping[int, GpuUuid],
    boot: str,
) -> Recovered:
    """Read the journal, end or undo every half-done story, clear away what belongs to nobody."""
    records, corrupt = journal.read_all()
    lives: list[Life] = []
    lost: list[tuple[Life, str]] = []
    stranded: list[Record] = []
    for record in records:
        group = groups.get(record.seat.group)
        if not _lives_on(record, boot):
            _discard(tools, record)
            continue
        if group is None or record.cards not in ((), tuple(uuids[i] for i in group.gpus)):
            stranded.append(record)
            continue
        life = Life(record=record, group=group, uuids=uuids)
        why = _settle(life, tools)
        if life.gone:
            _discard(tools, record)
            continue
        lives.append(life)
        if why:
            lost.append((life, why))
    kept = [*(life.record for life in lives), *stranded]
    unreadable = {one.uid for one in corrupt}
    _clear_slots(tools, {one.uid for one in kept} | unreadable)
    tools.depot.known(map(_named, filter(_is_lowered, kept)), unreadable)
    return Recovered(
        lives=tuple(lives), corrupt=corrupt, lost=tuple(lost), stranded=tuple(stranded)
    )


def _is_lowered(record: Record) -> bool:
    return bool(record.lowered)


def _named(record: Record) -> Named:
    """A copy in the depot, or one that may have been begun there."""
    size = record.terms.vram
    return Named(uid=record.uid, token=record.lowered, size=size, counts=record.stored)


def _lives_on(record: Record, boot: str) -> bool:
    """A container that is being restored has no process yet: the runtime will tell of it."""
    to_come = record.mark is Mark.RESTORING and not record.pid
    alive = to_come or processes.is_same(record.pid, record.pid_started)
    return record.boot == boot and alive


def _settle(life: Life, tools: Tools) -> str:
    """End or undo what was half done; why it is quarantined, else nothing."""
    story = Story(
        tools=tools,
        body=life.body,
        record=life.record,
        watch=Stopwatch(tools.clock),
        tell=lambda *_: None,
        need=life.need(),
    )
    log = get_logger(workload=str(life.key), mark=life.record.mark.value)
    try:
        life.record = _STEPS[life.record.mark](story)
    except Undone as undone:
        life.record = undone.record
        log.warning("undone after a restart", why=str(undone))
    except Lost as lost:
        life.record = lost.record
        return str(lost)
    except BodyGone as gone:
        life.gone = not _lives_on(life.record, life.record.boot)
        if not life.gone:
            life.record = story.mark(Mark.QUARANTINED)
            return f"it lives, but its GPU state is gone: {gone}"
    except (Refused, Retry, OSError) as error:
        life.record = story.mark(Mark.QUARANTINED)
        return f"it could not be settled after a restart: {error}"
    except Exception as fault:  # ours: one workload must not keep the agent from all others
        log.exception("a story failed after a restart")
        life.record = story.mark(Mark.QUARANTINED)
        return f"fault in the agent: {fault}"
    return ""


def _held(story: Story) -> Record:
    return story.record


def _active(story: Story) -> Record:
    """A copy in the pool is an older one: a resume ended and the agent died before freeing it.
    Frozen it is of no use to anybody, whoever did that."""
    story.thaw()
    story.tools.pool.retire(story.record.uid)
    story.drop_below()
    return story.record


def _parked(story: Story) -> Record:
    """Its copy must be there, and nothing of it in VRAM nor in another tier. The object store is
    not asked: it may be away, and its next resume sees more."""
    record, tools = story.record, story.tools
    if record.stored:
        tools.pool.free(record.uid)
        tools.cellar.drop(record.uid)
        return _stands_still(story)
    try:
        story.contents().parts()
    except Damaged as error:
        raise story.lost(str(error)) from error
    except (Refused, Retry, OSError) as error:  # the disk's fault: its next resume sees more
        get_logger(workload=str(story.record.key)).warning("not looked at", why=str(error))
    if record.lowered:
        tools.pool.free(record.uid)
    else:
        story.drop_below()
    return _stands_still(story)


def _between(story: Story) -> Record:
    """On its way between two tiers: the pool's copy counts until DEMOTED, the one below until
    PROMOTED, the cellar's until STORED, the depot's until FETCHED. A copy is only ever given up
    where the other one is whole; what was read back from the depot is, and is not asked for: so
    from STORED on the cellar's, which may be going already, is never needed again."""
    uid, token = story.record.uid, story.record.lowered
    pool, cellar = story.tools.pool.slot(uid), story.tools.cellar.slot(uid, token)
    _BETWEEN[story.record.mark](story, _is_whole(pool), _is_whole(cellar))
    return _parked(story)


_BETWEEN: Mapping[Mark, Callable[[Story, bool, bool], Record]] = {
    Mark.DEMOTING: lambda story, *_: demote.undo(story),
    Mark.DEMOTED: lambda story, pool, cellar: (
        demote.undo(story) if pool and not cellar else demote.finish(story)
    ),
    Mark.PROMOTING: lambda story, *_: promote.undo(story),
    Mark.PROMOTED: lambda story, pool, _: promote.finish(story) if pool else promote.undo(story),
    Mark.STORING: lambda story, *_: store.undo(story),
    Mark.STORED: lambda story, *_: store.finish(story),
    Mark.FETCHING: lambda story, *_: fetch.undo(story),
    Mark.FETCHED: lambda story, *_: (
        fetch.undo(story) if _is_damaged(story) else fetch.finish(story)
    ),
}


def _is_whole(slot: Slot) -> bool:
    try:
        slot.parts()
    except (Refused, Retry, OSError):
        return False
    return True


def _is_damaged(story: Story) -> bool:
    """The cellar's copy. It was read back in full, and the depot's may be going: a disk that does
    not give it now is no reason to give it up."""
    try:
        story.tools.cellar.slot(story.record.uid, story.record.lowered).parts()
    except Damaged:
        return True
    except (Refused, Retry, OSError):
        return False
    return False


def _stands_still(story: Story) -> Record:
    story.release_all()
    story.freeze()
    return story.record


def _sealing(story: Story) -> Record:
    """What made its image may be at work still, and must not be disturbed."""
    if not processes.await_end_of("checkpoint", story.record.container_id, _DUMP_S):
        get_logger(workload=str(story.record.key)).warning("its image is still being made")
    return seal.undo(story)


_STEPS: Mapping[Mark, Callable[[Story], Record]] = {
    Mark.HELD: _held,
    Mark.STARTING: start.finish,  # it was granted its GPUs, and nobody else can have got them
    Mark.ACTIVE: _active,
    Mark.PARKING: park.undo,
    Mark.COPIED: park.finish,
    Mark.PARKED: _parked,
    Mark.DEMOTING: _between,
    Mark.DEMOTED: _between,
    Mark.PROMOTING: _between,
    Mark.PROMOTED: _between,
    Mark.STORING: _between,
    Mark.STORED: _between,
    Mark.FETCHING: _between,
    Mark.FETCHED: _between,
    Mark.RESUMING: resume.undo,  # still wanted: the coordinator tries again
    Mark.VERIFIED: resume.finish,
    Mark.SEALING: _sealing,
    Mark.SEALED: seal.finish,  # there is a checkpoint: it is told of when the store is read
    Mark.WAKING: _held,  # never here: without a process it was forgotten, and is asked for again
    Mark.RESTORING: _held,  # the wakings go on with it
    Mark.QUARANTINED: _held,
}


def _body(record: Record) -> Body:
    return Body(
        key=record.key,
        uid=record.uid,
        pid=record.pid,
        gpus=record.cards,
        container_id=record.container_id,
        park=record.terms.park,
    )


def _discard(tools: Tools, record: Record) -> None:
    """The workload ended while nobody looked."""
    tools.mechanism.forget(_body(record))
    with suppress(OSError):
        tools.pool.free(record.uid)
    tools.cellar.drop(record.uid)
    tools.depot.drop(record.uid)
    tools.journal.forget(record.uid)


def _clear_slots(tools: Tools, owned: Collection[str]) -> None:
    """Slots nobody owns go, in pool and cellar; those of an unreadable record stay for people to
    look at."""
    for name in tools.pool.slots():
        if name not in owned:
            get_logger(slot=name).warning("a slot without an owner is cleared")
            tools.pool.free(name)
    for name in tools.cellar.names():
        if name not in owned:
            get_logger(slot=name).warning("a copy in the cellar without an owner is cleared")
            tools.cellar.drop(name)
