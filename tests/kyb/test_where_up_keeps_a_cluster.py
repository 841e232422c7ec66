"""`kyb up` empties its own folder and nobody else's. Faked: the cluster; nothing is started."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kyb import local
from testbed.processes import ProcessFailed

Kyb = Callable[..., Any]


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise ProcessFailed("no cluster here")

    monkeypatch.setattr(local.Stack, "start", start)
    monkeypatch.setattr(local.stacknodes, "LONGEST_FOLDER", 1000)  # pytest's are long


def test_a_folder_with_files_of_others_is_refused_and_left_alone(kyb: Kyb, tmp_path: Path) -> None:
    mine = tmp_path / "tls" / "key.pem"  # the name of a folder of ours, too
    mine.parent.mkdir()
    mine.write_text("mine")
    answer = kyb("up", "--work", str(tmp_path))
    assert answer.exit_code == 1
    assert f"{tmp_path} holds other files; name an empty folder" in answer.stderr
    assert mine.read_text() == "mine"


def test_what_an_earlier_cluster_left_is_removed_and_its_logs_stay(
    kyb: Kyb, tmp_path: Path
) -> None:
    work = tmp_path / "new"
    assert "no cluster here" in kyb("up", "--work", str(work)).stderr
    for left in ("plane", "log"):
        (work / left).mkdir()
    assert "no cluster here" in kyb("up", "--work", str(work)).stderr
    assert not (work / "plane").exists()
    assert (work / "log").exists()


def test_a_file_is_no_folder(kyb: Kyb, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = kyb("up", "--work", str(tmp_path / "file"))
    assert answer.exit_code == 2
    assert "is a file" in answer.output
