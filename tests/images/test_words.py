"""What people are told when CRIU or runc fails."""

import pytest

from nodeagent.images import criu

LOG = """\
(00.01) cg: fine
(00.02) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: not permitted
(00.03) Error (criu/sk-unix.c:878): unix: Can't dump half of stream unix connection.
(00.04) Error (criu/cr-dump.c:1780): Dump files (pid: 7) failed with -1
(00.05) Error (criu/cr-dump.c:2111): Dumping FAILED.
"""


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (LOG, "unix: Can't dump half of stream unix connection."),
        ("(0.1) Error (criu/x.c:1): Dumping FAILED.\n", ""),
        ("(0.1) Error (a): page-xfer: short: No space left on device\n",
         "there is no room left for the image"),
        ("", ""),
        ("\xff\x00", ""),
    ],
)  # fmt: skip
def test_of_crius_log_the_first_error_that_is_a_cause_is_told(tmp_path, log, words):
    (tmp_path / "dump.log").write_bytes(log.encode("latin-1"))
    assert criu.sentence(tmp_path / "dump.log") == words


def test_without_a_log_there_are_no_words(tmp_path):
    assert criu.sentence(tmp_path / "dump.log") == ""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('time="x" level=error msg="Invalid \\"mode\\""', 'Invalid "mode"'),
        ('old\ntime="x" level=error msg="read unixpacket @->@: EOF"',
         "CRIU was ended in the middle of it"),
        ("no such container", "no such container"),
        ("", ""),
    ],
)  # fmt: skip
def test_of_runcs_words_the_last_are_told(said, words):
    assert criu.of_runc(said) == words


def test_a_program_that_is_not_there_has_no_version():
    assert criu.version("/nowhere/criu") == ""
    assert "network-lock" in criu.options("/nowhere/criu", "leave-stopped")
