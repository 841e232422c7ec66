"""
The browser's process, and the pipe to it. Called through `testbed.browser`.

Rule: it has a home of its own that goes with it, and brings its libraries and its font, so that a
page looks the same on every machine.
"""

import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from testbed import assets
from testbed.browser.tab import Tab

# What it inherits at 3 and 4 is the pipe. They are moved out of each other's way first.
_WIRED = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_FLAGS = (
    "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
    "--force-color-profile=srgb", "--disable-background-networking", "--no-first-run",
    "--disable-dev-shm-usage", "--lang=en-GB",
)  # fmt: skip
_PATIENCE_S = 60.0


class BrowserFailed(Exception):
    """It did not start, ended, or says no."""


class Pipe:
    """Commands and their answers, by number. Events are dropped."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The answer's result. Raises BrowserFailed."""
        number = next(self._numbers)
        said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._answers[number] = said
        with self._lock:
            os.write(self._write, json.dumps(message).encode() + b"\0")
        try:
            answer = said.get(timeout=_PATIENCE_S)
        except queue.Empty:
            raise BrowserFailed(f"no answer to {method} in {_PATIENCE_S:g} s") from None
        if "error" in answer:
            raise BrowserFailed(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer.get("result", {})
        return result

    def _listen(self) -> None:
        rest = b""
        while chunk := os.read(self._read, 1 << 16):
            *whole, rest = (rest + chunk).split(b"\0")
            for one in whole:
                message = json.loads(one)
                waiting = self._answers.pop(message.get("id", 0), None)
                if waiting is not None:
                    waiting.put(message)
        for waiting in list(self._answers.values()):
            waiting.put({"error": {"message": "the browser ended"}})


@contextmanager
def browser() -> Iterator[Tab]:
    """A new one with one empty tab. Raises BrowserFailed, PackagesUnavailable."""
    program = assets.ensure(["chromium"])["chromium"]
    root = program.parents[3]
    with tempfile.TemporaryDirectory(prefix="kyb-browser-") as home:
        theirs, write = os.pipe()
        read, ours = os.pipe()
        argv = [sys.executable, "-c", _WIRED, str(theirs), str(ours), str(program), *_FLAGS]
        argv += [f"--user-data-dir={home}"]
        with (Path(home) / "browser.log").open("wb") as log:
            process = subprocess.Popen(
                argv, env=_environment(root, home), pass_fds=(theirs, ours),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        os.close(theirs)
        os.close(ours)
        try:
            yield _tab(Pipe(write, read))
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            os.close(write)


def _tab(pipe: Pipe) -> Tab:
    target = pipe.ask("Target.createTarget", url="about:blank")["targetId"]
    session = pipe.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    return Tab(lambda method, **given: pipe.ask(method, session, **given))


def _environment(root: Path, home: str) -> dict[str, str]:
    libraries = [found for found in sorted(root.glob("usr/lib/*-linux-gnu")) if found.is_dir()]
    folders = [root / "usr/lib/chromium", *sorted(root.glob("lib/*-linux-gnu"))]
    for one in libraries:
        folders += [one, one / "nss", one / "pulseaudio"]
    (Path(home) / "fonts.conf").write_text(
        _FONTS.format(folder=root / "usr/share/fonts", home=home)
    )
    return {
        "HOME": home,
        "PATH": os.environ.get("PATH", ""),
        "TZ": "UTC",
        "LD_LIBRARY_PATH": ":".join(map(str, folders)),
        "FONTCONFIG_FILE": f"{home}/fonts.conf",
    }


_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}</dir><cachedir>{home}/fonts</cachedir></fontconfig>
"""
