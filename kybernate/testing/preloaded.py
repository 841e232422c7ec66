"""
Programs of ours that start in milliseconds: forked from an interpreter that has imported them.

Called by: `agentnode`, whose tests start and kill hundreds of agents, each of which would import
for a second or two. Rule: what a program does is what it would do as `python -m MODULE`; only its
imports are done already. Rule: the preloaded interpreter runs no thread; when whoever started it
ends, so do it and all that it forked.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_MOST = 1 << 20  # bytes of one wish: arguments and environment
_ENDED_BY_A_FAULT = 1
_CLONE_NEWNET = 0x40000000  # sched.h


class Forked:
    """Such a program, as `subprocess.Popen` shows one. `wait` and `poll` from one thread."""

    def __init__(self, pid: int, told: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended. Raises subprocess.TimeoutExpired."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            said = os.read(self._told, 16)
            os.close(self._told)
            self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode


class Preloaded:
    """The interpreter. `start` from any thread, one at a time."""

    def __init__(self, modules: Iterable[str]) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", __name__, str(its.fileno()), *modules]
        path = {"PYTHONPATH": str(Path(__file__).parents[2])}
        self._process = subprocess.Popen(argv, pass_fds=[its.fileno()], env=os.environ | path)
        its.close()
        self._wishes = ours

    def start(
        self,
        argv: list[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: int,
        fifo: str = "",
        own_network: bool = False,
    ) -> Forked:
        """`argv` is MODULE and its arguments; `output` gets what it says. With a `fifo` it is held
        as runc holds a container: it goes on when somebody has opened that to read. A network of
        its own has a loopback and nothing else, and needs root."""
        told, telling = os.pipe()
        how = {"fifo": fifo, "own_network": own_network}
        wish = json.dumps({"argv": argv, "cwd": str(cwd), "env": dict(env), **how})
        try:
            socket.send_fds(self._wishes, [wish.encode()], [output, telling])
        finally:
            os.close(telling)
        return Forked(int(self._wishes.recv(16)), told)

    def close(self) -> None:
        """End it, and whatever it forked."""
        self._wishes.close()
        self._process.wait()


@cache
def preloaded(*modules: str) -> Preloaded:
    """This process' own, made once."""
    made = Preloaded(modules)
    atexit.register(made.close)
    return made


# in the preloaded interpreter


class _Forks:
    """Who was forked, and whom their end is told to."""

    def __init__(self, wishes: socket.socket) -> None:
        self._wishes = wishes
        self._telling: dict[int, int] = {}
        self._ended, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._ended, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it

    def serve(self) -> None:
        """Until nobody can wish for anything any more."""
        while True:
            ready, _, _ = select.select([self._wishes.fileno(), self._ended], [], [])
            if self._ended in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._ended, 4096)
                self._reap()
            if self._wishes.fileno() in ready and not self._grant():
                return

    def end_all(self) -> None:
        """SIGKILL to whoever is left."""
        for pid in self._telling:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _grant(self) -> bool:
        body, descriptors, _, _ = socket.recv_fds(self._wishes, _MOST, 2)
        if not body:
            return False
        output, telling = descriptors
        pid = os.fork()
        if not pid:
            self._become(json.loads(body), output)
        os.close(output)
        self._telling[pid] = telling
        self._wishes.send(str(pid).encode())
        return True

    def _reap(self) -> None:
        while self._telling:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            telling = self._telling.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(telling, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(telling)

    def _become(self, wish: dict[str, Any], output: int) -> NoReturn:
        """As the program, in the forked process. Nothing of ours is open in it afterwards."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with Path(os.devnull).open("rb") as nothing:
                os.dup2(nothing.fileno(), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.chdir(wish["cwd"])
            os.environ.clear()
            os.environ.update(wish["env"])
            if wish["own_network"]:
                _leave_the_network()
            _hold(wish["fifo"])
            status = _run(wish["argv"])
        except BaseException:  # told as the interpreter would, where this is one that is left by
            sys.excepthook(*sys.exc_info())
            status = _ENDED_BY_A_FAULT
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _leave_the_network() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _hold(fifo: str) -> None:
    if fifo:
        Path(fifo).write_text("0\n", encoding="ascii")


def _run(argv: list[str]) -> int:
    time.tzset()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.argv = argv
    sys.path[:0] = filter(None, [str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(":")])
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return _ENDED_BY_A_FAULT
        return ended.code or 0
    return 0


def _serve(descriptor: int, modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    with socket.socket(fileno=descriptor) as wishes:
        forks = _Forks(wishes)
        try:
            forks.serve()
        finally:
            forks.end_all()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2:])
