"""Every format ever written stays readable, also without any of our code.

`golden/v0` was sealed by the first version of it; nobody has its private key any more.
"""

import base64
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kybernate.artifacts import v0 as manifests
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

GOLDEN = Path(__file__).parent / "golden" / "v0"
NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
ROOT = GOLDEN / "sealed" / NAMESPACE / NAME


@pytest.fixture
def old(tmp_path: Path) -> Store:
    """The store of an agent that trusts, beside its own, the key of back then."""
    Keys.own(tmp_path / "keys")
    with (tmp_path / "keys/trusted.pem").open("ab") as trusted:
        trusted.write((GOLDEN / "trusted.pem").read_bytes())
    shutil.copytree(GOLDEN / "sealed", tmp_path / "node/sealed")
    return Store(tmp_path / "node", Keys(tmp_path / "keys"), 2**30)


def test_a_checkpoint_of_the_first_version_opens(old: Store) -> None:
    sealed = old.open(NAMESPACE, NAME)
    facts = sealed.manifest.facts
    assert (facts.workload, facts.made_in.kernel) == ("statefulset.llama.0", "6.1.0-18-amd64")
    assert b"".join(sealed.read(facts.parts[0].path)) == b"contents of the card\n"


def test_what_is_written_today_is_still_that_version(old: Store) -> None:
    sealed = old.open(NAMESPACE, NAME)
    assert manifests.encode(sealed.manifest) == sealed.content


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
