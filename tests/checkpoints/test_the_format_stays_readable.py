"""Every format ever written stays readable, also without any of our code.

`golden/v0` was sealed by the first version of it; nobody has its private key any more. What an
agent finds of it in its folder is carried over into the format of today, and stays what it was.
"""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kybernate.artifacts import layers as lists
from kybernate.artifacts import v0
from kybernate.artifacts.facts import Facts, GpuPart
from kybernate.artifacts.faults import Unusable
from kybernate.artifacts.v0 import File, Manifest
from kybernate.ladder import plain
from kybernate.model.checkpoint import Flaw
from nodeagent.checkpoints import layers
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

GOLDEN = Path(__file__).parent / "golden" / "v0"
NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
ROOT = GOLDEN / "sealed" / NAMESPACE / NAME
PIECE, COUNT = 4096, 64


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The folder of an agent that trusts, beside its own key, the one of back then, and finds what
    that one left."""
    Keys.own(tmp_path / "keys")
    with (tmp_path / "keys/trusted.pem").open("ab") as trusted:
        trusted.write((GOLDEN / "trusted.pem").read_bytes())
    shutil.copytree(GOLDEN / "sealed", tmp_path / "node/sealed")
    return tmp_path / "node"


def agents(node: Path, **how: Any) -> Store:
    """As its agent has it once it has started."""
    return Store(node, Keys(node.parent / "keys"), 2**30, **{"spare": 0, **how})


def test_a_checkpoint_of_the_first_version_opens(node: Path) -> None:
    store = agents(node)
    sealed = store.open(NAMESPACE, NAME)
    facts = sealed.manifest.facts
    assert (facts.workload, facts.made_in.kernel) == ("statefulset.llama.0", "6.1.0-18-amd64")
    assert b"".join(sealed.read(facts.parts[0].path)) == b"contents of the card\n"
    signature = (ROOT / "manifest.sig").read_text().strip()
    assert sealed.signature == signature  # its GpuCheckpoint names it by this
    assert store.believed(NAMESPACE, NAME, signature=signature) == sealed


def test_it_is_carried_over_at_the_start_and_its_plain_files_go(node: Path) -> None:
    store = agents(node)
    assert store.room().used > 0
    store.carry_over()
    assert [one.manifest.name for one in store.all()] == [NAME]
    assert not (node / "sealed" / NAMESPACE / NAME).exists()
    used = store.room().used
    again = agents(node)
    assert again.room().used == used
    assert again.open(NAMESPACE, NAME) == store.peek(NAMESPACE, NAME)
    assert again.delete(NAMESPACE, NAME)
    assert again.room().used == 0


def test_one_that_cannot_be_carried_over_stays_as_it_is(node: Path) -> None:
    page = next(path for path in (node / "sealed").rglob("files/**/*") if path.is_file())
    good = page.read_bytes()
    page.write_bytes(b"x" + good[1:])
    store = agents(node)
    store.carry_over()
    assert store.all() == ()
    with pytest.raises(Unusable):
        store.open(NAMESPACE, NAME)
    assert page.exists()
    page.write_bytes(good)
    full = agents(node, free=lambda _: 0)
    full.carry_over()
    assert (full.all(), page.exists()) == ((), True)
    assert agents(node).open(NAMESPACE, NAME)


def test_an_agent_that_died_while_it_carried_one_over_does_it_again(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dying(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("nodeagent.checkpoints.carriedover.CarriedOver.remove", dying)
        with pytest.raises(Killed):
            agents(node).carry_over()  # it is in the store, and its plain files are there too
    store = agents(node)
    assert store.open(NAMESPACE, NAME)
    store.carry_over()
    assert not (node / "sealed" / NAMESPACE / NAME).exists()
    assert store.open(NAMESPACE, NAME)


def test_it_is_verified_with_standard_tools_as_the_reference_says() -> None:
    content = (ROOT / "manifest.json").read_bytes()
    scheme, key_id, signature = (ROOT / "manifest.sig").read_text().strip().split(":")
    key = load_pem_public_key((GOLDEN / "trusted.pem").read_bytes())
    assert isinstance(key, Ed25519PublicKey)
    assert (scheme, key_id) == (
        "ed25519",
        hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16],
    )
    key.verify(base64.b64decode(signature), b"kybernate checkpoint v0\n" + content)
    for file in json.loads(content)["files"]:
        found = (ROOT / "files" / file["path"]).read_bytes()
        assert (len(found), hashlib.sha256(found).hexdigest()) == (file["size"], file["sha256"])


# GPU contents in layers


def layered(folder: Path, facts: Facts, keys: Keys, files: dict[str, bytes]) -> None:
    """As an agent of back then left one."""
    root = folder / "sealed" / NAMESPACE / NAME
    shutil.rmtree(root, ignore_errors=True)
    for path, content in files.items():
        (root / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "files" / path).write_bytes(content)
    listed = tuple(
        File(path=path, size=len(content), sha256=sha256(content).hexdigest())
        for path, content in sorted(files.items())
    )
    content = v0.encode(Manifest(namespace=NAMESPACE, name=NAME, facts=facts, files=listed))
    assert b'"version": 2' in content
    (root / "manifest.json").write_bytes(content)
    (root / "manifest.sig").write_text(keys.sign(content))


def test_contents_in_layers_are_read(node: Path, facts: Callable[..., Any]) -> None:
    first, second = bytes(range(256)) * 64, b"b" * 3 * 2**20
    pieces = [
        lists.Piece("gpu/layer-b", 2**21 - 1000, 2000, lists.digest(b"b" * 2000)),
        lists.Piece("gpu/layer-a", 256, PIECE, lists.digest(first[256 : 256 + PIECE])),
        lists.Piece("gpu/layer-b", 3 * 2**20 - 5, 5, lists.digest(b"bbbbb")),
    ]
    part = GpuPart(name="s0", card=0, size=1, digest=lists.of_all(pieces), path="gpu/0",
                   layered=True)  # fmt: skip
    files = {"gpu/0": lists.encode(pieces), "gpu/layer-a": first, "gpu/layer-b": second}
    layered(node, facts(parts=(part,)), Keys(node.parent / "keys"), files)
    sealed = agents(node).open(NAMESPACE, NAME)
    whole = b"b" * 2000 + first[256 : 256 + PIECE] + b"b" * 5
    assert b"".join(layers.read(sealed, part)) == whole
    with pytest.raises(Unusable) as caught:
        list(layers.read(sealed, replace(part, digest="00" * 32)))
    assert caught.value.reason is Flaw.FILE_ALTERED


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: {**whole, "version": 2},
        lambda whole: {**whole, "format": "tar"},
        lambda whole: {**whole, "pieces": [[0, PIECE * COUNT, PIECE, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, -1, PIECE, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, 0, 2**63, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, 0, 0, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[7, 0, PIECE, "00" * 32]]},
        lambda whole: {**whole, "pieces": [[0, 0, PIECE, "00"]]},
        lambda whole: {**whole, "pieces": [[0, 0, PIECE, "zz" * 32]]},
        lambda whole: {**whole, "pieces": 7},
        lambda whole: {**whole, "layers": ["../../etc/shadow"], "pieces": whole["pieces"]},
        lambda whole: {**whole, "layers": [7]},
        lambda whole: {"format": whole["format"]},
    ],
)
def test_a_list_that_says_what_cannot_be_is_refused(spoil: Callable[..., Any]) -> None:
    good = lists.encode([lists.Piece("gpu/layer-a", 0, PIECE, bytes(32))])
    sizes = {"gpu/layer-a": PIECE * COUNT}
    assert lists.decode(good, sizes)
    with pytest.raises(Unusable):
        lists.decode(orjson.dumps(spoil(orjson.loads(good))), sizes)


# what is hostile


def _write(node: Path, content: bytes) -> None:
    """A checkpoint with this manifest, signed by us, whatever it says."""
    root = node / "sealed" / NAMESPACE / NAME
    shutil.rmtree(root, ignore_errors=True)
    (root / "files").mkdir(parents=True)
    (root / "manifest.json").write_bytes(content)
    (root / "manifest.sig").write_text(Keys(node.parent / "keys").sign(content))


def refused(node: Path) -> Flaw:
    trusted = Keys(node.parent / "keys").trusted
    with pytest.raises(Unusable) as caught:
        plain.opened(node, NAMESPACE, NAME, trusted)
    store = agents(node)
    store.carry_over()
    assert store.all() == ()
    return caught.value.reason


def _manifest(facts: Any, *paths: str) -> Manifest:
    digest = sha256(b"").hexdigest()
    files = tuple(File(path=path, size=0, sha256=digest) for path in paths)
    return Manifest(namespace=NAMESPACE, name=NAME, facts=replace(facts(), parts=()), files=files)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../outside", id="up"),
        pytest.param("a/../../outside", id="up-from-below"),
        pytest.param("/etc/outside", id="absolute"),
        pytest.param("a//b", id="empty-part"),
        pytest.param("./a", id="here"),
        pytest.param("", id="empty"),
        pytest.param("a\\b", id="backslash"),
        pytest.param("a\x00b", id="nul"),
        pytest.param("a b", id="space"),
        pytest.param("ä", id="beyond-ascii"),
        pytest.param("x" * 256, id="long-part"),
        pytest.param("/".join("a" * 9), id="deep"),
    ],
)
def test_a_signed_manifest_names_no_path_that_could_lead_outside(
    node: Path, facts: Any, path: str
) -> None:
    _write(node, v0.encode(_manifest(facts, path)))
    assert refused(node) is Flaw.BAD_NAME


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(("a", "a"), Flaw.MALFORMED, id="one-file-twice"),
        pytest.param(("a", "a/b"), Flaw.MALFORMED, id="a-file-that-is-a-folder"),
    ],
)
def test_a_signed_manifest_does_not_contradict_itself(
    node: Path, facts: Any, paths: tuple[str, ...], expected: Flaw
) -> None:
    _write(node, v0.encode(_manifest(facts, *paths)))
    assert refused(node) is expected


def _changed(facts: Any, changes: dict[str, Any]) -> bytes:
    whole = orjson.loads(v0.encode(_manifest(facts, "a")))
    return orjson.dumps(whole | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"version": 1}, Flaw.VERSION, id="of-the-future"),
        pytest.param({"format": "tar"}, Flaw.VERSION, id="of-another-format"),
        pytest.param({"size": 1}, Flaw.MALFORMED, id="wrong-sum"),
        pytest.param({"files": "a"}, Flaw.MALFORMED, id="no-list"),
        pytest.param({"files": [{"path": "a"}]}, Flaw.MALFORMED, id="no-size"),
        pytest.param(
            {"files": [{"path": "a", "size": -1, "sha256": "0" * 64}]},
            Flaw.MALFORMED,
            id="negative",
        ),
        pytest.param(
            {"files": [{"path": "a", "size": 0, "sha256": "zz"}]}, Flaw.MALFORMED, id="no-digest"
        ),
        pytest.param({"facts": None}, Flaw.MALFORMED, id="no-facts"),
        pytest.param({"namespace": "../../etc"}, Flaw.BAD_NAME, id="a-path-for-a-namespace"),
        pytest.param({"name": "Upper"}, Flaw.BAD_NAME, id="a-name-kubernetes-has-not"),
    ],
)
def test_a_signed_manifest_that_cannot_be_read_is_refused(
    node: Path, facts: Any, changes: dict[str, Any], expected: Flaw
) -> None:
    _write(node, _changed(facts, changes))
    assert refused(node) is expected


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 5000])
def test_signed_bytes_that_are_no_manifest_are_refused(node: Path, content: bytes) -> None:
    _write(node, content)
    assert refused(node) is Flaw.MALFORMED


def test_gpu_contents_that_are_in_no_file_are_refused(node: Path, facts: Any) -> None:
    manifest = _manifest(facts, "a")
    _write(node, v0.encode(replace(manifest, facts=facts())))
    assert refused(node) is Flaw.MALFORMED
