"""Manifests of every format give artifacts that say the same of the same facts."""

from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kybernate.artifacts import manifest as manifests
from kybernate.artifacts import signing
from nodeagent.checkpoints import rows

GOLDEN = Path(__file__).parents[1] / "artifacts/golden/v1"


def test_one_of_format_v1_is_a_row_too() -> None:
    [path] = [one for one in (GOLDEN / "store/manifests").rglob("*") if one.is_file()]
    public = load_pem_public_key((GOLDEN / "trusted.pem").read_bytes())
    trusted = {signing.key_id(public): public}
    namespace, name = path.parent.name, path.name
    manifest, signature = manifests.read(path.read_bytes(), trusted, namespace, name)
    found = rows.described(manifest, signature, "v1")
    assert (found.identity.namespace, found.identity.name) == (namespace, name)
    assert found.identity.signature == signature
    assert (found.format, found.size) == ("v1", manifest.size)
    assert found.fingerprint.startswith("sha256:")
    assert found.made_in["kernel"] == "6.1.0-18-amd64"
