"""
Where all ranks of a job can be stopped, by how far each of them has come with its collectives.

Pure; called by `halting`. A line is a sequence of calls that go on only with the other members: a
communicator's collectives, or one direction between two of its ranks. All members have to be
stopped after the same number of calls, or a kernel in flight waits for one that will not come.
Those that are behind may go on to where the first one is. One that is held at another line on its
way there may go on with that one as well, and so may its other members; ranks that run the same
program meet at the latest where all of it begins anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One process's place in a line. `member` of `members` (0: not known); `wanted`: how far a
    thread that is held there would go, 0 where none is; `ended`: it starts nothing there any more;
    `between`: of one direction between two ranks."""

    key: int
    member: int
    members: int
    started: int
    wanted: int = 0
    ended: bool = False
    between: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One process. `inside`: calls that started and have not returned; `setting_up`: those that
    make or end communicators."""

    pid: int
    inside: int = 0
    setting_up: int = 0
    lines: Sequence[Line] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What to do next. `stopped`: all stand where they should. Otherwise `targets` are how far who
    is in a line may go, and `why` says whom everybody waits for."""

    stopped: bool
    targets: Mapping[int, int] = field(default_factory=dict)
    why: str = ""


def course(standings: Sequence[Standing]) -> Course:
    """Of all processes of a workload."""
    targets = _furthest(standings)
    debts = [
        (one, line)
        for one in standings
        for line in one.lines
        if not line.ended and line.started < targets[line.key]
    ]
    alone = _without_all_members(standings)
    setting_up = [one for one in standings if one.setting_up]
    may_owe = {one.pid for one, _ in debts}
    for line in alone:
        may_owe |= _strangers(standings, line.key)
    for one in standings:
        if setting_up or one.pid in may_owe:
            _let_on(one, targets)
    busy = [one for one in standings if one.inside]
    if not (debts or alone or setting_up or busy):
        return Course(stopped=True)
    return Course(stopped=False, targets=targets, why=_why(debts, alone, setting_up, busy))


def _furthest(standings: Iterable[Standing]) -> dict[int, int]:
    found: dict[int, int] = {}
    for one in standings:
        for line in one.lines:
            found[line.key] = max(line.started, found.get(line.key, 0))
    return found


def _let_on(one: Standing, targets: dict[int, int]) -> None:
    """What a process that has to go on is held at."""
    for line in one.lines:
        targets[line.key] = max(targets[line.key], line.wanted)


def _strangers(standings: Sequence[Standing], key: int) -> set[int]:
    """Who may have the missing end of a line: those without one, or all where all have one."""
    everybody = {one.pid for one in standings}
    known = {one.pid for one in standings if any(line.key == key for line in one.lines)}
    return everybody - known or everybody


def _without_all_members(standings: Sequence[Standing]) -> list[Line]:
    """Lines in use whose other members were not seen: not there yet, or in another workload."""
    seen: dict[int, set[int]] = {}
    using: dict[int, Line] = {}
    for one in standings:
        for line in one.lines:
            seen.setdefault(line.key, set()).add(line.member)
            if line.started and not line.ended:
                using[line.key] = line
    return [line for key, line in using.items() if line.members and len(seen[key]) < line.members]


def elsewhere(standings: Sequence[Standing]) -> int:
    """Communicators some of whose ranks are in none of these processes."""
    seen: dict[int, set[int]] = {}
    members: dict[int, int] = {}
    for line in (line for one in standings for line in one.lines if not line.between):
        seen.setdefault(line.key, set()).add(line.member)
        if not line.ended:
            members[line.key] = line.members
    if any(one.setting_up for one in standings):
        return 0
    return sum(len(seen[key]) < count for key, count in members.items())


def _why(
    debts: Sequence[tuple[Standing, Line]],
    alone: Sequence[Line],
    setting_up: Sequence[Standing],
    busy: Sequence[Standing],
) -> str:
    if debts:
        one, line = debts[0]
        return f"process {one.pid} made {line.started} of its calls, others are further"
    if setting_up:
        return f"process {setting_up[0].pid} makes or ends a communicator"
    if alone:
        return (
            f"a communicator of {alone[0].members} ranks has some that are not of this workload, "
            "or did not come yet"
        )
    return f"process {busy[0].pid} is in the middle of a call"
