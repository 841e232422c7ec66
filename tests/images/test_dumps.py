"""A dump that fails. Real: a process, folders. Faked: runc (a shell script), the freezer."""

import os
import signal
import subprocess

import pytest

from kybernate.testing.agentnode import wait_for
from nodeagent.images import Body, BodyGone, DumpFailed, RuncImages
from nodeagent.linux import processes


class FakeFreezer:
    """Remembers."""

    def __init__(self, frozen=False):
        self.asked, self.stands = [], frozen

    def freeze(self, pid, container_id):
        self.asked.append("freeze")
        self.stands = True

    def thaw(self, pid, container_id):
        self.asked.append("thaw")
        self.stands = False

    def frozen(self, pid, container_id):
        return self.stands


@pytest.fixture
def body(tmp_path):
    process = subprocess.Popen(["sleep", "1000"])
    (tmp_path / "bundle" / "rootfs").mkdir(parents=True)
    yield Body(
        container_id="c0ffee",
        pid=process.pid,
        started=processes.started(process.pid),
        runc_root=tmp_path / "root",
        bundle=tmp_path / "bundle",
        labels={},
    )
    process.kill()
    process.wait()


@pytest.fixture
def runc(tmp_path):
    """`runc(script)`: a path of one that does so; $WORK is its --work-path."""

    def make(script):
        program = tmp_path / "runc"
        find = 'for a; do case "$a" in --work-path=*) WORK=${a#--work-path=};; esac; done\n'
        program.write_text(f"#!/bin/sh\n{find}{script}\n")
        program.chmod(0o755)
        return str(program)

    return make


LOGGED = "echo '(0.1) Error (criu/x.c:1): mnt: it will not do' > $WORK/dump.log; exit 1"


@pytest.mark.parametrize("frozen", [True, False])
def test_the_workload_stands_or_runs_as_before(body, runc, tmp_path, frozen):
    freezer = FakeFreezer(frozen)
    with pytest.raises(DumpFailed, match="mnt: it will not do"):
        RuncImages(freezer, runc=runc(LOGGED), criu="false").dump(body, tmp_path / "image")
    assert freezer.stands is frozen
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'time=x level=error msg=\"no such container\"' >&2; exit 1", "no such container"),
        ("echo 'level=error msg=\"read unixpacket @->@: EOF\"' >&2; exit 1", "was ended in the"),
        ("kill -9 $$", "runc ended with -9 and said nothing"),
    ],
)
def test_what_runc_says_is_the_reason_where_crius_log_has_none(body, runc, tmp_path, script, words):
    with pytest.raises(DumpFailed, match=words):
        RuncImages(FakeFreezer(), runc=runc(script), criu="false").dump(body, tmp_path / "image")


def test_a_runc_that_is_not_there_is_said(body, tmp_path):
    with pytest.raises(DumpFailed, match="/nowhere/runc cannot be run"):
        RuncImages(FakeFreezer(), runc="/nowhere/runc", criu="false").dump(body, tmp_path / "image")


def test_a_folder_that_cannot_be_written_to_is_said_and_nothing_is_frozen(body, runc, tmp_path):
    freezer = FakeFreezer()
    (tmp_path / "file").touch()
    with pytest.raises(DumpFailed, match="file"):
        RuncImages(freezer, runc=runc(LOGGED), criu="false").dump(body, tmp_path / "file" / "image")
    assert freezer.asked == []


def test_one_that_a_signal_stopped_is_told_to_go_on_once_its_cgroup_holds_it(body, runc, tmp_path):
    os.kill(body.pid, signal.SIGSTOP)
    wait_for(lambda: processes.is_stopped(body.pid), "it is stopped")
    with pytest.raises(DumpFailed):
        RuncImages(FakeFreezer(), runc=runc(LOGGED), criu="false").dump(body, tmp_path / "image")
    wait_for(lambda: not processes.is_stopped(body.pid), "it goes on")


def test_a_process_that_ended_has_no_image(body, runc, tmp_path):
    gone = Body(
        container_id="c0ffee",
        pid=body.pid,
        started=body.started + 1,  # another one has its number
        runc_root=body.runc_root,
        bundle=body.bundle,
        labels={},
    )
    images = RuncImages(FakeFreezer(), runc=runc(LOGGED), criu="false")
    for call in (lambda: images.dump(gone, tmp_path / "image"), lambda: images.unfit(gone)):
        with pytest.raises(BodyGone):
            call()
