"""
The ways one program can leave the card and come back, for `benchmarks.parking`.

Each takes a running program and returns its switches. `through_image` ends its process in between;
it needs root, CRIU and our plugin for it.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.harness.gpuprograms import (
    Node,
    Program,
    Switch,
    park,
    release,
    resume,
    switch,
)
from nodeagent.images import zeros
from nodeagent.linux import processes
from testbed.assets import native

_LIMIT_S = 60.0


def changed(node: Node, one: Program, times: int) -> list[Switch]:
    """Everything is copied: nothing is known of it from before."""
    return [switch(node, one) for _ in range(times)]


def unchanged(node: Node, one: Program, times: int) -> list[Switch]:
    """The pool has its copy of before, and nothing of it changed."""
    with _kept(node, one):
        return [switch(node, one, keep=True) for _ in range(times)]


def some_changed(node: Node, one: Program, times: int) -> list[Switch]:
    """As `unchanged`, but for every twentieth segment."""
    with _kept(node, one):
        return [_change_and_switch(node, one) for _ in range(times)]


def deep(node: Node, one: Program, times: int) -> list[Switch]:
    """Its context leaves, too; everything is copied."""
    return [switch(node, one, by=node.deep) for _ in range(times)]


def by_driver(node: Node, one: Program, times: int) -> list[Switch]:
    """By the driver alone; the program has no library of ours."""
    return [switch(node, one, by=node.driver) for _ in range(times)]


def pressed(node: Node, one: Program, times: int) -> tuple[list[Switch], dict[str, float]]:
    """Resumed out of a pool that was pressed while it was parked; and how long that took, and what
    it left of the bytes."""
    done: list[Switch] = []
    facts: dict[str, float] = {}
    for number in range(times):
        done.append(found := Switch())
        kept = park(node, one, found, node.mechanism)
        before, began = node.pool.bulk.used(), time.monotonic()
        while node.mechanism.press.round():
            pass
        if not number:
            facts = {
                "pressing_seconds": time.monotonic() - began,
                "of_the_ram": node.pool.bulk.used() / before,
            }
        resume(node, one, found, node.mechanism, kept)
        found.copied = node.mechanism.tallies[-1].copied
        node.pool.retire(one.body.uid)
        one.goes_on()
    return done, facts


def taken_turns(node: Node, one: Program, other: Program, times: int) -> tuple[float, float]:
    """Seconds from the lock of an active program, of which nothing changed, until another one goes
    on; and those of its resume alone. Medians."""
    whole, alone = [], []
    kept = park(node, one, Switch(), node.mechanism)
    for _ in range(times):
        leaving, coming = Switch(), Switch()
        others = park(node, other, leaving, node.mechanism)
        resume(node, one, coming, node.mechanism, kept)
        whole.append(leaving.park + coming.resume)
        alone.append(coming.resume)
        node.pool.retire(one.body.uid)
        one.goes_on()
        kept, one, other = others, other, one
    resume(node, one, Switch(), node.mechanism, kept)
    steady = slice(1, None)  # the first park copies all
    return sorted(whole[steady])[len(whole) // 2 - 1], sorted(alone[steady])[len(alone) // 2 - 1]


def why_no_image() -> str:
    """Why no image can be made here; empty where it can."""
    if os.geteuid():
        return "images are made by root"
    return "" if shutil.which("criu") else "there is no CRIU (criu)"


def through_image(node: Node, one: Program, folder: Path) -> Switch:
    """Parked deep, made an image of, ended, made again and resumed: a dead process that runs."""
    done, mechanism, body = Switch(), node.deep, one.body
    done.timed("close and drain", lambda: mechanism.lock(body, _LIMIT_S))
    parts = done.timed("list", lambda: mechanism.parts(body))
    done.size = sum(part.size for part in parts)
    slot = node.pool.reserve(body.uid, done.size)
    kept = done.timed(
        "copy out", lambda: [mechanism.copy_out(body, p, slot, lambda _: None) for p in parts]
    )
    slot.seal(tuple(kept))
    done.timed("release", lambda: release(mechanism, body, parts))
    known = done.timed("let go", lambda: mechanism.let_go(body, _LIMIT_S))
    done.timed("dump", lambda: _criu("dump", folder, "--tree", str(body.pid), "--ext-unix-sk"))
    done.zeros = done.timed("zeros out", lambda: zeros.take_out(folder))
    one.process.wait()
    mechanism.forget(body)
    done.timed("restore", lambda: _criu("restore", folder, "--restore-detached", "--leave-stopped"))
    done.timed("adopt", lambda: mechanism.adopt(body, known))
    processes.thaw(body.pid)
    done.timed("list again", lambda: mechanism.parts(body))
    done.timed("copy in", lambda: [mechanism.copy_in(body, k, slot, lambda _: None) for k in kept])
    done.timed("open", lambda: mechanism.unlock(body, _LIMIT_S))
    node.pool.free(body.uid)
    _goes_on(one)
    return done


@contextmanager
def woken(one: Program) -> Iterator[None]:
    """Afterwards the program that `through_image` made is ended: it is nobody's child of ours."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(one.body.pid, signal.SIGKILL)


def _goes_on(one: Program) -> None:
    before, until = one.facts()["steps"], time.monotonic() + _LIMIT_S
    while one.facts()["steps"] <= before + 2:
        if time.monotonic() > until:
            raise RuntimeError("what was woken does not go on")
        time.sleep(0.002)


@contextmanager
def _kept(node: Node, one: Program) -> Iterator[None]:
    """A copy of before is there, and goes at the end."""
    switch(node, one, keep=True)
    try:
        yield
    finally:
        node.pool.free(one.body.uid)


def _change_and_switch(node: Node, one: Program) -> Switch:
    so_far = one.facts()["changed"]
    one.ask("change")
    one.wait(lambda facts: facts["changed"] > so_far)
    return switch(node, one, keep=True)


def _criu(verb: str, folder: Path, *arguments: str) -> None:
    argv = [
        "criu", verb, "--images-dir", str(folder), "--log-file", f"{verb}.log",
        "--libdir", str(native.criu_plugins()), "--network-lock", "skip", *arguments,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        log = (folder / f"{verb}.log").read_text(errors="replace")
        errors = [line for line in log.splitlines() if "Error" in line]
        raise RuntimeError(f"criu {verb}: {'; '.join(errors[:3]) or done.stderr}")
