"""How often the kernel is asked. Real: this process's own network namespace; counted, not asked."""

import os
from collections.abc import Callable

import pytest

from nodeagent.demand import sockdiag
from nodeagent.demand.lines import Lines
from nodeagent.disk.records import Mark
from nodeagent.linux import processes
from nodeagent.lives.life import Life
from nodeagent.probing.netns import Namespaces


@pytest.fixture
def here(a_life: Callable[..., Life]) -> Callable[..., Life]:
    """A life in the host's network: this process's."""
    pid = os.getpid()
    return lambda name, mark: a_life(name, pid=pid, pid_started=processes.started(pid), mark=mark)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each question to the kernel."""
    found: list[object] = []

    def look(line: object) -> tuple[()]:
        found.append(line)
        return ()

    monkeypatch.setattr(sockdiag, "look", look)
    return found


def test_one_look_a_round_serves_all_that_are_parked_on_the_host(
    here: Callable[..., Life], asked: list[object]
) -> None:
    lines = Lines(Namespaces())
    parked = [here(f"model-{number}", Mark.PARKED) for number in range(30)]
    for rounds in (1, 2):
        lines.look_together(life.id for life in parked)
        for life in parked:
            lines.look(life)
        assert len(asked) == rounds
    lines.close()


def test_who_is_none_of_the_round_is_seen_as_it_is_now(
    here: Callable[..., Life], asked: list[object]
) -> None:
    lines, parked = Lines(Namespaces()), here("parked", Mark.PARKED)
    lines.look_together([parked.id])
    lines.look(parked)
    for _ in range(3):
        lines.look(here("runs", Mark.ACTIVE))
    assert len(asked) == 4
    lines.close()


def test_a_look_that_failed_is_no_look(
    here: Callable[..., Life], asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: object) -> tuple[()]:
        raise sockdiag.DiagFailed(1, "sock_diag refuses")

    lines, parked = Lines(Namespaces()), here("parked", Mark.PARKED)
    lines.look_together([parked.id])
    with monkeypatch.context() as patched:
        patched.setattr(sockdiag, "look", refuses)
        with pytest.raises(OSError, match="refuses"):
            lines.look(parked)
    lines.look(parked)
    assert len(asked) == 1
    lines.close()
