"""A container's process: held like runc's, its end never missed, nothing of it left."""

import os
import signal
from pathlib import Path

import pytest

from testbed.lightnode.container import Container, Launch, StartFailed


@pytest.fixture
def start(work):
    """Starts a command in a folder of its own; what is left at the end is killed."""
    made = []

    def begin(*command, held=False, working_dir=""):
        launch = Launch(
            command=command,
            environment={"PATH": os.environ["PATH"]},
            working_dir=working_dir,
            held=held,
            log=work / "log",
        )
        made.append(Container.start(work / str(len(made)), launch))
        return made[-1]

    yield begin
    for one in made:
        one.kill()
        one.sweep()


def ended(container):
    return lambda: container.exit_code() is not None


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_the_process_number_is_the_commands_own(start, until, work, held):
    container = start("sh", "-c", "echo $$; exec sleep 600", held=held)
    if held:
        assert container.fifo.read_bytes() == b"0\n"
    until((work / "log").read_text)
    assert int((work / "log").read_text()) == container.pid


def test_a_held_one_does_nothing_before_it_is_released(start, until, work):
    container = start("sh", "-c", "echo done", held=True)
    assert container.exit_code() is None
    assert (work / "log").read_text() == ""
    assert container.fifo.read_bytes() == b"0\n"
    until(ended(container))
    assert (work / "log").read_text() == "done\n"


def test_a_reader_that_does_not_read_releases_too(start, until):
    container = start("true", held=True)
    os.close(os.open(container.fifo, os.O_RDONLY))
    until(ended(container))
    assert container.exit_code() == 0


@pytest.mark.parametrize("held", [False, True], ids=["running", "held"])
@pytest.mark.parametrize(
    ("act", "code"),
    [
        pytest.param(Container.terminate, 128 + signal.SIGTERM, id="terminated"),
        pytest.param(Container.kill, 128 + signal.SIGKILL, id="killed"),
    ],
)
def test_an_end_by_signal_is_told_as_shells_tell_it(start, until, held, act, code):
    container = start("sleep", "600", held=held)
    act(container)
    until(ended(container))
    assert container.exit_code() == code


def test_an_end_by_itself_is_told_with_its_code(start, until):
    container = start("sh", "-c", "exit 5")
    until(ended(container))
    assert container.exit_code() == 5


def test_a_keeper_that_was_killed_counts_as_killed(start, until, work):
    container = start("sleep", "600")
    os.killpg(container._keeper.pid, signal.SIGKILL)
    until(ended(container))
    assert container.exit_code() == 137


def test_children_end_with_their_container(start, until, work):
    container = start("sh", "-c", "sleep 600 & echo $!")
    until(ended(container))
    child = Path("/proc") / (work / "log").read_text().strip()
    container.sweep()
    until(lambda: not child.exists() or ") Z " in (child / "stat").read_text())


def test_a_container_is_found_again(start, until, work):
    container = start("sleep", "600")
    found = Container.find(container.folder)
    assert (found.pid, found.exit_code()) == (container.pid, None)
    found.kill()
    until(ended(container))
    assert Container.find(work / "none") is None


def test_a_command_runs_where_it_was_asked_to(start, until, work):
    (work / "it's here").mkdir()
    container = start("pwd", working_dir=str(work / "it's here"))
    until(ended(container))
    assert (work / "log").read_text().strip() == str(work / "it's here")
    with pytest.raises(StartFailed):
        start("pwd", working_dir=str(work / "absent"))


def test_a_program_that_is_not_there_ends_as_in_a_shell(start, until):
    container = start("no-such-program-anywhere")
    until(ended(container))
    assert container.exit_code() == 127


def test_one_that_stands_still_because_it_is_parked_ends_when_it_is_asked_to(start, until):
    container = start("sleep", "600")
    os.kill(container.pid, signal.SIGSTOP)
    container.terminate()
    until(ended(container))
    assert container.exit_code() == 128 + signal.SIGTERM
