"""
Writes the files of a checkpoint of format v1, with nothing of Kybernate:

    python standalone.py STORE NAMESPACE NAME WRAPPING_KEY TRUSTED_PEM OUT

STORE is a folder (a mounted bucket will do), WRAPPING_KEY a file with 32 bytes in base64,
TRUSTED_PEM the public keys, OUT a folder that is made. Needs: cryptography, blake3.
"""

import json
import re
import struct
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_public_key

V1 = "kybernate checkpoint v1"


def main(store, namespace, name, wrapping_file, trusted_file, out):
    line, content = Path(store, "manifests", namespace, name).read_bytes().split(b"\n", 1)
    magic, version, signature = line.decode().split(" ")
    assert (magic, version) == ("kybernate-checkpoint", "1"), line
    _, signer, signature = signature.split(":")
    pem = rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----"
    for text in re.findall(pem, Path(trusted_file).read_bytes(), re.DOTALL):
        key = load_pem_public_key(text)
        if sha256(key.public_bytes_raw()).hexdigest()[:16] == signer:
            key.verify(b64decode(signature), f"{V1}\n".encode() + content)
            break
    else:
        sys.exit(f"signed by {signer}, which is not trusted")
    manifest = json.loads(content)
    assert (manifest["namespace"], manifest["name"]) == (namespace, name)

    domain = Path(store, "domains", manifest["domain"])
    record = json.loads((domain / "keys" / f"{manifest['key']}.json").read_bytes())
    wrapping = b64decode(Path(wrapping_file).read_text())
    wrapping_id = blake3(wrapping, derive_key_context=f"{V1} wrapping key id").hexdigest()[:16]
    wrap = next(one for one in record["wrapped"] if one["by"] == wrapping_id)
    about = f"kybernate domain key v1\n{manifest['domain']}\n{manifest['key']}".encode()
    secret = AESGCM(wrapping).decrypt(b64decode(wrap["nonce"]), b64decode(wrap["secret"]), about)
    assert blake3(secret, derive_key_context=f"{V1} key id").hexdigest()[:16] == manifest["key"]
    name_key = blake3(secret, derive_key_context=f"{V1} chunk names").digest()
    seal_key = blake3(secret, derive_key_context=f"{V1} chunk contents").digest()

    packs = []  # of each, its file and [(name, offset, size)] of its chunks
    for text in manifest["packs"]:
        listed = b64decode(text)
        pack, chunks, offset = blake3(listed).hexdigest(), [], 8
        for chunk, size in struct.iter_unpack("<32sI", listed):
            chunks.append((chunk, offset, size))
            offset += size + 16
        packs.append((domain / "packs" / pack[:2] / pack, chunks))

    def contents(pack, number):
        path, chunks = packs[pack]
        chunk, offset, size = chunks[number]
        with path.open("rb") as file:
            file.seek(offset)
            sealed = file.read(size + 16)
        found = AESGCM(blake3(chunk, key=seal_key).digest()).decrypt(bytes(12), sealed, None)
        assert blake3(found, key=name_key).digest() == chunk, path
        return found

    for file in manifest["files"]:
        assert not file["path"].startswith("/")
        assert ".." not in file["path"].split("/")
        target = Path(out, file["path"])
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as written:
            for piece in file["content"]:
                if len(piece) == 1:
                    written.seek(piece[0], 1)
                    continue
                for number in range(piece[1], piece[1] + piece[2]):
                    written.write(contents(piece[0], number))
            written.truncate(file["size"])


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
