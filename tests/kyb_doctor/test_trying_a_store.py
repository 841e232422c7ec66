"""The doctor's row of the object store: what is tried, and what is left behind (nothing).

Real: a folder, the object server. Faked: stores that lose or change what they are given.
"""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kyb.__main__ import app
from kyb.doctor import checks, command, objectstore
from kyb.doctor.facts import ObjectStore
from kyb.doctor.findings import Grade
from kyb.doctor.objectstore import tried
from kybernate.runtime.clock import SystemClock
from kybernate.stores import places
from kybernate.stores.errors import Away, NoRoom
from kybernate.stores.nvme import Nvme
from kybernate.stores.ram import Ram
from testbed.objectserver import KEY_ID, SECRET, ObjectServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """With one bucket."""
    with ObjectServer.start(tmp_path_factory.mktemp("objects")) as running:
        running.make_bucket("kyb")
        yield running


@pytest.fixture
def environ(server: ObjectServer) -> dict[str, str]:
    """Who may use it."""
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


@pytest.fixture
def wrapping(tmp_path: Path) -> Path:
    """One key that wraps, one that opens."""
    folder = tmp_path / "wrapping"
    folder.mkdir()
    for name in ("wrapping.key", "old.key"):
        (folder / name).write_text(b64encode(bytes(32)).decode())
    return folder


def row(a_node: Any, store: ObjectStore | None) -> Any:
    return next(one for one in checks.examine(a_node(store=store)) if one.check == "object store")


def test_a_bucket_is_tried_measured_and_left_as_it_was(
    environ: dict[str, str], wrapping: Path, a_node: Any
) -> None:
    found = tried("s3://kyb/one", wrapping, environ, measure=True)
    assert (found.problem, found.keys_problem, found.keys) == ("", "", 2)
    assert found.rates is not None
    assert min(found.rates.into, found.rates.out_of) > 0
    assert list(places.store("s3://kyb/one", environ).list()) == []
    one = row(a_node, found)
    assert one.grade is Grade.OK
    assert one.found.startswith("s3://kyb/one: ")
    assert one.found.endswith("MB/s get; 2 wrapping keys")
    quick = tried("s3://kyb/one", wrapping, environ, measure=False)
    assert row(a_node, quick).found == "s3://kyb/one: 2 wrapping keys; not measured"


@pytest.mark.parametrize(
    ("place", "changed", "says", "mend"),
    [
        ("s3://absent/x", {}, "there is no such bucket", "kyb store check"),
        ("s3://kyb", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "Denied", "AWS_SECRET_ACCESS_KEY"),
        ("s3://kyb", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "Away", "AWS_ENDPOINT_URL"),
        ("s3://UPPER", {}, "expected s3://BUCKET", "name a folder"),
        ("ftp://kyb", {}, "there is no folder", "name a folder"),
        ("/not/there", {}, "there is no folder /not/there", "name a folder"),
    ],
)
def test_what_is_wrong_is_said_and_how_to_mend_it(
    environ: dict[str, str], wrapping: Path, a_node: Any, place: str, changed: Any, says: str,
    mend: str,
) -> None:  # fmt: skip
    one = row(a_node, tried(place, wrapping, environ | changed, measure=False))
    assert one.grade is Grade.FAULT
    assert says in one.found
    assert mend in one.mend
    assert "docs/how-to/give-agents-a-store.md" in one.mend
    assert not Path("/not").exists()


def test_keys_that_are_missing_are_a_fault_of_their_own(tmp_path: Path, a_node: Any) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    one = row(a_node, tried(str(folder), None, {}, measure=False))
    assert one.grade is Grade.FAULT
    assert one.found == f"{folder}: no keys that wrap are given"
    assert "--wrapping" in one.mend
    one = row(a_node, tried(str(folder), tmp_path, {}, measure=False))
    assert "keys that wrap: " in one.found
    assert [
        path for path in folder.rglob("*") if path.is_file() and "drafts" not in str(path)
    ] == []


def test_none_given_is_said_and_no_fault(a_node: Any) -> None:
    one = row(a_node, None)
    assert (one.grade, one.found) == (Grade.WARNING, "none given")


class Changing(Ram):
    def get(self, key: str, *more: Any, **named: Any) -> memoryview:
        return memoryview(bytes(super().get(key, *more, **named))[:-1] + b"!")


class Keeping(Ram):
    def delete(self, key: str) -> bool:
        return True


class Full(Ram):
    def put(self, key: str, content: Any) -> None:
        if len(list(self.list())) == 2:
            raise NoRoom(key)
        super().put(key, content)


class Breaking(Ram):
    def get(self, key: str, *more: Any, **named: Any) -> memoryview:
        raise Away("it went")


@pytest.mark.parametrize(
    ("kind", "says", "left"),
    [
        (Changing, "not what was put", 0),
        (Keeping, "what is deleted stays", objectstore._TOGETHER),
        (Full, "NoRoom", 0),
        (Breaking, "Away: it went", 0),
    ],
)
def test_a_store_that_fails_is_told_and_nothing_is_left_that_can_go(
    monkeypatch: pytest.MonkeyPatch, wrapping: Path, kind: type[Ram], says: str, left: int
) -> None:
    store = kind(1 << 30, SystemClock().now)
    monkeypatch.setattr(places, "store", lambda *_: store)
    found = tried("s3://kyb", wrapping, {}, measure=False)
    assert says in found.problem
    assert len(list(store.list())) == left


def test_as_it_is_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrapping: Path, good: Any
) -> None:
    """The store and its keys come from options, or from the agents' own environment."""
    looks = []

    def facts(_: Any, look: Any) -> Any:
        looks.append(look)
        return good

    monkeypatch.setattr(command.node, "facts", facts)
    typed = ["doctor", "--node-local", "--quick", "--store=s3://a/b", f"--wrapping={wrapping}"]
    assert CliRunner().invoke(app, typed).exit_code == 0
    told = {"KYB_CHECKPOINT_STORE": "s3://c", "KYB_CHECKPOINT_WRAPPING_KEYS": str(tmp_path)}
    assert CliRunner().invoke(app, ["doctor", "--node-local"], env=told).exit_code == 0
    assert [(one.store, one.wrapping) for one in looks] == [
        ("s3://a/b", wrapping),
        ("s3://c", tmp_path),
    ]


def test_a_folder_that_others_write_to_is_left_alone(tmp_path: Path, wrapping: Path) -> None:
    others = Nvme(tmp_path / "store")
    others.put("manifests/default/a", b"theirs")
    assert tried(str(tmp_path / "store"), wrapping, {}, measure=True).problem == ""
    assert [one.key for one in others.list()] == ["manifests/default/a"]
