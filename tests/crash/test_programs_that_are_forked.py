"""What starts from a preloaded interpreter is as what starts as a program: asked of both."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kybernate.testing.agentnode import wait_for
from kybernate.testing.preloaded import Forked, Preloaded

PROGRAM = """
import os, signal, sys
print(sys.argv[1:], os.getcwd(), sorted(os.environ), sorted(map(int, os.listdir("/proc/self/fd"))))
if __name__ != "__main__": raise RuntimeError
match sys.argv[1]:
    case "exits": sys.exit(int(sys.argv[2]))
    case "says": sys.exit("that is wrong")
    case "raises": raise ValueError("odd")
    case "waits": signal.pause()
"""
Started = Forked | subprocess.Popen[bytes]
Start = Callable[..., Started]


@pytest.fixture(params=["forked", "program"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts PROGRAM with these arguments; what it says is in `said`."""
    (tmp_path / "odd_program.py").write_text(PROGRAM)
    env = {"PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1", "ONE": "1"}
    begun: list[Started] = []
    interpreter = Preloaded(["json"]) if request.param == "forked" else None

    def begin(*words: str) -> Started:
        with (tmp_path / "said").open("ab") as said:
            if interpreter is None:
                argv = [sys.executable, "-m", "odd_program", *words]
                how = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
                begun.append(subprocess.Popen(argv, cwd=tmp_path, env=env, **how))  # type: ignore[call-overload]
            else:
                argv = ["odd_program", *words]
                begun.append(interpreter.start(argv, cwd=tmp_path, env=env, output=said.fileno()))
        return begun[-1]

    yield begin
    for one in begun:
        one.kill()
        one.wait()
    if interpreter is not None:
        interpreter.close()


def _said(tmp_path: Path) -> str:
    return (tmp_path / "said").read_text()


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("exits", "0"), 0, "['exits', '0']"),
        (("exits", "3"), 3, "['exits', '3']"),
        (("says",), 1, "that is wrong"),
        (("raises",), 1, "ValueError: odd"),
    ],
)
def test_how_it_ended_is_told(
    start: Start, tmp_path: Path, words: tuple[str, ...], status: int, text: str
) -> None:
    ended = start(*words)
    assert ended.wait(30) == status
    assert ended.poll() == status
    assert text in _said(tmp_path)
    assert str(tmp_path) in _said(tmp_path)
    assert "'ONE'" in _said(tmp_path)
    assert "'HOME'" not in _said(tmp_path)
    assert "[0, 1, 2, 3]" in _said(tmp_path)  # the last is the folder that it reads


def test_it_is_ended_as_any_process(start: Start, tmp_path: Path) -> None:
    one, other = start("waits"), start("waits")
    wait_for(lambda: (tmp_path / "said").exists() and _said(tmp_path).count("waits") == 2, "both")
    assert one.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.kill()
    other.send_signal(signal.SIGTERM)
    assert (one.wait(30), other.wait(30)) == (-signal.SIGKILL, -signal.SIGTERM)
    one.kill()  # nothing, and nobody else


def test_nobody_outlives_the_interpreter_nor_is_let_go_before_somebody_asks(tmp_path: Path) -> None:
    (tmp_path / "odd_program.py").write_text(PROGRAM)
    os.mkfifo(tmp_path / "fifo")
    interpreter = Preloaded(["json"])
    env = {"PYTHONPATH": str(tmp_path)}
    with (tmp_path / "said").open("ab") as said:
        held = interpreter.start(
            ["odd_program", "waits"],
            cwd=tmp_path, env=env, output=said.fileno(), fifo=str(tmp_path / "fifo"),
        )  # fmt: skip
    assert held.poll() is None
    assert _said(tmp_path) == ""
    assert (tmp_path / "fifo").read_text() == "0\n"
    wait_for(lambda: "waits" in _said(tmp_path), "it runs")
    interpreter.close()
    assert held.wait(30) == -signal.SIGKILL
