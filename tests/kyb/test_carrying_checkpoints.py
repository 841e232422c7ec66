"""`kyb checkpoint export`, `import`, `clone`, `inspect`: from a node's disk to a store and back.

Real: an agent's own store on disk (format v0), kyb's commands, the object server where it is asked.
"""

import os
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kyb.__main__ import app
from kybernate.api import names
from kybernate.clients.errors import Refused
from kybernate.clients.pb import peerstore_pb2_grpc as rpc
from kybernate.stores.nvme import Nvme
from kybernate.testing.artifacts import FACTS
from nodeagent.checkpoints.lentstore import LentStore
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store
from testbed.lentstores import Lender
from testbed.objectserver import KEY_ID, SECRET, ObjectServer

NAME = "default/llama-0"
CONTENTS = {"gpu/0": os.urandom(5_000_000) + bytes(9_000_000), "image/core-1.img": b"process"}


class Machine:
    """A node's checkpoint folder with one checkpoint, its keys, and a folder of wrapping keys."""

    def __init__(self, folder: Path, name: str) -> None:
        self.agent, self.keys = folder / name / "agent", folder / name / "keys"
        self.wrapping = folder / name / "wrapping"
        self.wrapping.mkdir(parents=True)
        (self.wrapping / "wrapping.key").write_text(b64encode(os.urandom(32)).decode())
        self.start()

    def start(self) -> None:
        """The agent, anew."""
        self.store = Store(self.agent, Keys.own(self.keys, self.wrapping), 2**30, spare=0)

    def seal(self, contents: dict[str, bytes], name: str = "llama-0") -> None:
        with self.store.draft("default", name) as draft:
            for path, body in contents.items():
                draft.write(path, [body])
            draft.seal(FACTS)

    def contents(self, name: str = "llama-0") -> dict[str, bytes]:
        sealed = self.store.open("default", name)
        return {file.path: b"".join(sealed.read(file.path)) for file in sealed.manifest.files}

    @property
    def options(self) -> list[str]:
        return [f"--keys={self.keys}", f"--wrapping={self.wrapping}"]


def _kyb(*words: object) -> str:
    done = CliRunner().invoke(app, ["checkpoint", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output + done.stderr
    return done.output


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    made = Machine(tmp_path, "here")
    made.seal(CONTENTS)
    return made


def test_out_to_a_store_and_back_into_another_agents_folder(here: Machine, tmp_path: Path) -> None:
    said = _kyb("export", NAME, "--from", here.agent, "--to", tmp_path / "store", *here.options)
    assert "6.0 MiB written" in said
    there = Machine(tmp_path, "there")
    _kyb(
        "import", NAME, "--from", tmp_path / "store", "--to", there.agent, *there.options,
        f"--signed-by={here.keys / 'trusted.pem'}", f"--wrapped-by={here.wrapping}",
    )  # fmt: skip
    assert there.contents() == CONTENTS
    carried = there.store.open("default", "llama-0").manifest.facts
    assert carried == replace(FACTS, written=carried.written, added=carried.added)
    assert carried == here.store.peek("default", "llama-0").manifest.facts


def test_a_second_export_moves_only_what_changed(here: Machine, tmp_path: Path) -> None:
    _kyb("export", NAME, "--from", here.agent, "--to", tmp_path / "store", *here.options)
    here.seal({**CONTENTS, "image/core-1.img": b"changed"}, "llama-1")
    said = _kyb("export", "default/llama-1", "--from", here.agent, "--to", tmp_path / "store",
                *here.options)  # fmt: skip
    assert "0.0 MiB written" in said


def test_a_store_with_a_strangers_checkpoint_is_used(here: Machine, tmp_path: Path) -> None:
    _kyb("export", NAME, "--from", here.agent, "--to", tmp_path / "store", *here.options)
    (tmp_path / "store/manifests/default/strange").write_bytes(b"whatever")
    here.seal(CONTENTS, "llama-1")
    said = _kyb("export", "default/llama-1", "--from", here.agent, "--to", tmp_path / "store",
                *here.options)  # fmt: skip
    assert "0.0 MiB written" in said


def test_across_clusters_by_a_bucket(
    here: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ObjectServer.start(tmp_path / "objects") as server:
        server.make_bucket("kyb")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        _kyb("export", NAME, "--from", here.agent, "--to", "s3://kyb/one", *here.options)
        there = Machine(tmp_path, "there")
        _kyb(
            "import", NAME, "--from", "s3://kyb/one", "--to", tmp_path / "theirs", *there.options,
            f"--signed-by={here.keys / 'trusted.pem'}", f"--wrapped-by={here.wrapping}",
        )  # fmt: skip
        _kyb("import", NAME, "--from", tmp_path / "theirs", "--to", there.agent, *there.options)
        assert there.contents() == CONTENTS
        _kyb("export", NAME, "--from", tmp_path / "theirs", "--to", "s3://kyb/two", *there.options)
        assert "default" in _kyb("inspect", NAME, "--in", "s3://kyb/two", f"--keys={there.keys}")


@pytest.fixture
def lender(here: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lender]:
    """An agent with a store that has one checkpoint; we have the agents' certificate."""
    _kyb("export", NAME, "--from", here.agent, "--to", tmp_path / "store", *here.options)
    lent = LentStore(Nvme(tmp_path / "store"))
    lender = Lender(
        tmp_path / "lender", lambda server: rpc.add_PeerStoreServicer_to_server(lent, server)
    )
    monkeypatch.setenv("KYB_PEER_TLS", str(lender.identity()))
    yield lender
    lender.end()


def test_out_of_what_another_agent_lends(here: Machine, lender: Lender, tmp_path: Path) -> None:
    there, place = Machine(tmp_path, "there"), f"peer://{lender.address}"
    said = _kyb("inspect", NAME, "--in", place, f"--keys={here.keys}")
    assert "default" in said
    theirs = (f"--signed-by={here.keys / 'trusted.pem'}", f"--wrapped-by={here.wrapping}")
    _kyb("import", NAME, "--from", place, "--to", there.agent, *there.options, *theirs)
    assert there.contents() == CONTENTS
    _kyb("export", NAME, "--from", place, "--to", tmp_path / "copy", *here.options)
    here.seal(CONTENTS, "llama-1")
    with pytest.raises(Refused, match="lends its store to be read"):
        _kyb("export", "default/llama-1", "--from", here.agent, "--to", place, *here.options)


def test_who_has_not_the_agents_certificate_is_told(
    here: Machine, lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KYB_PEER_TLS", str(lender.identity(names.CLIENT)))
    with pytest.raises(Refused, match="only agents"):
        _kyb("inspect", NAME, "--in", f"peer://{lender.address}", f"--keys={here.keys}")


def test_a_clone_is_another_name_for_the_same_contents(here: Machine, tmp_path: Path) -> None:
    store = tmp_path / "store"
    _kyb("export", NAME, "--from", here.agent, "--to", store, *here.options)
    packs = sorted(store.rglob("packs/*/*"))
    _kyb("clone", NAME, "default/debugging", "--in", store, *here.options)
    assert sorted(store.rglob("packs/*/*")) == packs
    _kyb("import", "default/debugging", "--from", store, "--to", here.agent, *here.options)
    assert here.contents("debugging") == CONTENTS
    _kyb("clone", NAME, "other/debugging", "--in", store, *here.options)  # another domain
    assert len(sorted(store.rglob("packs/*/*"))) == 2 * len(packs)
    assert "other," in _kyb("inspect", "other/debugging", "--in", store, f"--keys={here.keys}")
    with pytest.raises(Refused):
        _kyb("inspect", "other/absent", "--in", store, f"--keys={here.keys}")


def test_it_is_shown(here: Machine, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (tmp_path / "old/plain").mkdir(parents=True)  # of an agent that does not run
    _kyb("export", NAME, "--from", here.agent, "--to", store, *here.options)
    _kyb("import", NAME, "--from", store, "--to", tmp_path / "old", *here.options)
    for place, version in ((tmp_path / "old", "v0"), (here.agent, "v1"), (store, "v1")):
        said = _kyb("inspect", NAME, "--in", place, f"--keys={here.keys}")
        for word in (version, "statefulset.llama.0", "python serve.py", "image/core-1.img", "H200"):
            assert word in said
    assert "3 chunks of 1 packs, " in said


def test_wrapping_keys_are_rotated(here: Machine, tmp_path: Path) -> None:
    store = tmp_path / "store"
    _kyb("export", NAME, "--from", here.agent, "--to", store, *here.options)
    (here.wrapping / "wrapping.key").rename(here.wrapping / "old.key")
    (here.wrapping / "wrapping.key").write_text(b64encode(os.urandom(32)).decode())
    assert "1 key record changed" in _kyb("rewrap", "--in", store, f"--wrapping={here.wrapping}")
    here.start()  # which does the same with its own
    (here.wrapping / "old.key").unlink()
    here.store.delete("default", "llama-0")
    _kyb("import", NAME, "--from", store, "--to", here.agent, *here.options)
    assert here.contents() == CONTENTS


@pytest.mark.parametrize("what", ["altered", "foreign", "unwrapped"])
def test_what_is_not_believed_is_not_carried(here: Machine, tmp_path: Path, what: str) -> None:
    store, there = tmp_path / "store", Machine(tmp_path, "there")
    _kyb("export", NAME, "--from", here.agent, "--to", store, *here.options)
    options = there.options
    if what == "altered":
        pack = next(store.rglob("packs/*/*"))
        content = bytearray(pack.read_bytes())
        content[1000] ^= 1
        pack.write_bytes(content)
        options += [f"--signed-by={here.keys}", f"--wrapped-by={here.wrapping}"]
    elif what == "unwrapped":
        options += [f"--signed-by={here.keys}"]
    with pytest.raises(Refused):
        _kyb("import", NAME, "--from", store, "--to", there.agent, *options)
    assert not list((there.agent / "sealed").glob("default/*"))
    assert not list((there.agent / "plain").iterdir())


def test_an_altered_file_of_the_agent_is_not_exported(here: Machine, tmp_path: Path) -> None:
    [pack] = here.agent.glob("domains/*/packs/*/*")
    content = bytearray(pack.read_bytes())
    content[1000] ^= 1
    pack.write_bytes(content)
    with pytest.raises(Refused):
        _kyb("export", NAME, "--from", here.agent, "--to", tmp_path / "store", *here.options)
    assert not list((tmp_path / "store").glob("manifests/*/*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inspect", "llama-0", "--in", "/nowhere"], "expected NAMESPACE/NAME"),
        (["inspect", NAME, "--in", "/nowhere"], "there is no such folder"),
        (["inspect", NAME, "--in", "s3://A/b"], "expected s3://BUCKET"),
        (["inspect", NAME, "--in", "peer://node"], "expected peer://HOST:PORT"),
        (["inspect", NAME, "--in", "peer://node:7443"], "KYB_PEER_TLS is not set"),
    ],
)
def test_what_makes_no_sense_is_told(here: Machine, words: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["checkpoint", *words, f"--keys={here.keys}"])
    assert done.exit_code == 1
    assert says in done.output + done.stderr
