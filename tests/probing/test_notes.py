"""How containers stood last, on disk. Real: files. Faked: the books."""

import json
from types import SimpleNamespace

import pytest

from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State
from nodeagent.probing.notes import Notes


@pytest.fixture
def tenancies():
    return {}


@pytest.fixture
def notes(tmp_path, tenancies):
    return Notes(tmp_path / "standing", lambda: SimpleNamespace(tenancies=tenancies))


def one(name, state):
    key = WorkloadKey("default", name)
    return key, SimpleNamespace(key=key, life=f"id-{name}", state=state)


def written(tmp_path):
    folder = tmp_path / "standing"
    return {path.stem: json.loads(path.read_bytes()) for path in folder.glob("*.json")}


def test_each_container_has_its_note_which_follows_its_state(notes, tenancies, tmp_path):
    tenancies.update([one("a", State.ACTIVE), one("b", State.PARKED)])
    notes.refresh()
    assert written(tmp_path)["id-a"] == {"held": "no"}
    said = "default/b is Parked: it does not have its GPU now"
    assert written(tmp_path)["id-b"] == {"held": "yes", "say": said}
    tenancies.update([one("a", State.PARKING)])
    notes.refresh()
    assert written(tmp_path)["id-a"]["held"] == "yes"


def test_a_note_goes_with_its_container(notes, tenancies, tmp_path):
    tenancies.update([one("a", State.ACTIVE)])
    notes.refresh()
    tenancies.clear()
    notes.refresh()
    assert written(tmp_path) == {}


def test_what_an_agent_before_us_wrote_is_written_anew_or_goes(notes, tenancies, tmp_path):
    (tmp_path / "standing").mkdir()
    (tmp_path / "standing" / "id-a.json").write_text('{"held":"yes"}')
    (tmp_path / "standing" / "id-old.json").write_text('{"held":"yes"}')
    tenancies.update([one("a", State.ACTIVE)])
    notes.begin()
    assert written(tmp_path) == {"id-a": {"held": "no"}}


def test_a_folder_that_takes_nothing_stops_nobody(notes, tenancies, tmp_path):
    (tmp_path / "standing").write_text("a file")
    tenancies.update([one("a", State.ACTIVE)])
    notes.begin()
    (tmp_path / "standing").unlink()
    notes.refresh()
    assert written(tmp_path) == {"id-a": {"held": "no"}}
