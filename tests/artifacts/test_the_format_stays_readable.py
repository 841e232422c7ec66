"""What was written in format v1 stays readable, by our code and without it.

`golden/v1` was sealed by the first version of it; nobody has its signing key any more.
"""

import os
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from kybernate.artifacts import chunks, keys, names, packs, signing
from kybernate.artifacts import manifest as manifests
from kybernate.artifacts.chunks import DomainKey
from kybernate.testing.artifacts import FILES, NAME, NAMESPACE, WRAPPING, made, opened

GOLDEN = Path(__file__).parent / "golden" / "v1"
STANDALONE = Path(__file__).parent / "standalone.py"


def _standalone(store: Path, keys_in: Path, out: Path) -> subprocess.CompletedProcess[str]:
    arguments = [store, NAMESPACE, NAME, keys_in / "wrapping.key", keys_in / "trusted.pem", out]
    return subprocess.run(
        [sys.executable, "-I", STANDALONE, *arguments], capture_output=True, text=True, check=False
    )


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_checkpoint_of_the_first_version_opens() -> None:
    blob = (GOLDEN / "store/manifests" / NAMESPACE / NAME).read_bytes()
    public = load_pem_public_key((GOLDEN / "trusted.pem").read_bytes())
    trusted = {signing.key_id(public): public}
    manifest, signature = manifests.read(blob, trusted, NAMESPACE, NAME)
    assert signature.startswith("ed25519:")
    assert manifest.facts.made_in.kernel == "6.1.0-18-amd64"
    assert manifest.size == sum(map(len, FILES.values()))
    stored = (GOLDEN / "store" / manifest.pack_keys[0]).read_bytes()
    assert packs.check(manifest.packs[0].name, stored) == manifest.packs[0]
    record = (GOLDEN / "store" / names.record_key(manifest.domain, manifest.key)).read_bytes()
    wrapping = b64decode((GOLDEN / "wrapping.key").read_text())
    domain = keys.unwrap(
        keys.decode(record, manifest.domain, manifest.key), {keys.wrapping_id(wrapping): wrapping}
    )
    first = manifest.packs[0].chunks[0]
    contents = bytearray(first.size)
    begin = manifest.packs[0].offsets[0]
    domain.open(first.name, stored[begin : begin + first.size + 16], memoryview(contents))
    assert contents == b"contents of the card\n"


def test_what_is_written_today_is_still_that_version() -> None:
    today = made()
    for key, content in today.objects.items():
        golden = (GOLDEN / "store" / key).read_bytes()
        if key == today.key:  # the line above differs: another signer
            content, golden = content.split(b"\n", 1)[1], golden.split(b"\n", 1)[1]
        assert content == golden, key


def test_a_page_of_python_without_our_code_reads_the_first_version(tmp_path: Path) -> None:
    done = _standalone(GOLDEN / "store", GOLDEN, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "out") == FILES
    assert "kybernate." not in STANDALONE.read_text().replace("kybernate.artifacts", "")


def test_that_page_reads_what_is_sealed_today(tmp_path: Path) -> None:
    two, three = os.urandom(2 * chunks.CHUNK), os.urandom(chunks.CHUNK)
    files = {"a": two + bytes(2 * chunks.CHUNK) + three + b"!", "b/c": three, "d": bytes(5)}
    today = made(files)
    _keep(today.objects, tmp_path)
    pem = today.signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "trusted.pem").write_bytes((GOLDEN / "trusted.pem").read_bytes() + pem)
    (tmp_path / "wrapping.key").write_text(b64encode(WRAPPING).decode())
    done = _standalone(tmp_path, tmp_path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert _files(tmp_path / "out") == files == opened(today, today.objects)


@pytest.mark.parametrize("what", ["signature", "chunk"])
def test_that_page_refuses_what_was_altered(tmp_path: Path, what: str) -> None:
    objects = made().objects
    key = next(
        key
        for key in objects
        if key.startswith("manifests" if what == "signature" else "domains/default/packs")
    )
    objects[key] = objects[key][:-100] + bytes([objects[key][-100] ^ 1]) + objects[key][-99:]
    _keep(objects, tmp_path)
    assert _standalone(tmp_path, GOLDEN, tmp_path / "out").returncode != 0


def test_the_example_of_the_reference_is_right() -> None:
    domain = DomainKey(bytes(32))
    packing = packs.Packing(memoryview(bytearray(packs.LARGEST)))
    _, into = packing.place(domain.name(b"abc"), 3)
    domain.seal(domain.name(b"abc"), b"abc", into)
    pack, content = packing.finish()
    assert len(content) == pack.size == 75


def _keep(objects: dict[str, bytes], folder: Path) -> None:
    for key, content in objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)
