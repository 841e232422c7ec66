"""How often the kernel is asked. Real: this process's own network namespace; counted, not asked."""

import os
from collections.abc import Callable

import pytest

from kybernate.testing.clock import FakeClock
from nodeagent.demand import sockdiag
from nodeagent.demand.lines import LATELY_S, Lines
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


def test_all_that_are_parked_on_the_host_are_seen_by_one_look(
    here: Callable[..., Life], asked: list[object]
) -> None:
    clock = FakeClock()
    lines = Lines(Namespaces(), clock)
    for number in range(30):
        lines.look(here(f"model-{number}", Mark.PARKED))
    assert len(asked) == 1
    clock.advance(2 * LATELY_S)
    lines.look(here("model-0", Mark.PARKED))
    assert len(asked) == 2
    lines.close()


def test_who_runs_is_seen_as_it_is_now(here: Callable[..., Life], asked: list[object]) -> None:
    lines = Lines(Namespaces(), FakeClock())
    lines.look(here("parked", Mark.PARKED))
    for _ in range(3):
        lines.look(here("runs", Mark.ACTIVE))
    assert len(asked) == 4
    lines.close()


def test_a_look_that_failed_is_no_look(
    here: Callable[..., Life], asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: object) -> tuple[()]:
        raise sockdiag.DiagFailed(1, "sock_diag refuses")

    lines, parked = Lines(Namespaces(), FakeClock()), here("parked", Mark.PARKED)
    with monkeypatch.context() as patched:
        patched.setattr(sockdiag, "look", refuses)
        with pytest.raises(OSError, match="refuses"):
            lines.look(parked)
    lines.look(parked)
    assert len(asked) == 1
    lines.close()
