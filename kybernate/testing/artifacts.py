"""A checkpoint made by hand from the codecs, as a dict of objects by key. Real keys, no store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kybernate.artifacts import chunks, keys, names, packs, signing
from kybernate.artifacts import manifest as manifests
from kybernate.artifacts.chunks import DomainKey
from kybernate.artifacts.facts import Facts
from kybernate.artifacts.manifest import Chunks, File, Manifest, Piece, Zeros
from kybernate.artifacts.packs import Pack, Packing
from kybernate.model.checkpoint import Fingerprint
from kybernate.model.ids import NodeName, PodUid

NAMESPACE, NAME = "default", "llama-0-20261122t101500z"
SECRET, WRAPPING, NONCE = bytes(range(32)), bytes(range(32, 64)), bytes(12)
FILES = {
    "gpu/0": bytes(chunks.CHUNK) + b"contents of the card\n",
    "image/core-1.img": b"process image\n",
    "image/empty": b"",
    "rootfs.tar": b"process image\n",
}
FACTS = Facts(
    workload="statefulset.llama.0",
    pod="llama-0",
    pod_uid=PodUid("6f1c"),
    container="main",
    node=NodeName("node-a"),
    sealed_at=1_795_342_500.0,
    made_in=Fingerprint(
        kernel="6.1.0-18-amd64",
        architecture="x86_64",
        boot="0b7e51f3",
        image="registry.example/llama@sha256:1",
        command=("python", "serve.py"),
        mechanism="simulated",
        cpu=frozenset({"avx2", "sse2"}),
        product="H200",
        driver="590.1",
    ),
    labels={"app": "llama"},
    more={"size": "1"},
)


@dataclass
class Made:
    """Objects by key, and the keys that made them."""

    manifest: Manifest
    objects: dict[str, bytes]
    domain: DomainKey
    signer: Ed25519PrivateKey
    key: str = field(default="")

    @property
    def trusted(self) -> signing.Trusted:
        """Whom to believe."""
        public = self.signer.public_key()
        return {signing.key_id(public): public}


def made(
    files: Mapping[str, bytes] = FILES,
    alter: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    signer: Ed25519PrivateKey | None = None,
) -> Made:
    """Seal these files; `alter` is what a hostile signer does to the manifest."""
    domain = DomainKey(SECRET)
    packing = Packing(memoryview(bytearray(packs.LARGEST)))
    known: dict[bytes, int] = {}
    told = tuple(
        File(path=path, size=len(body), content=tuple(_pieces(body, domain, packing, known)))
        for path, body in sorted(files.items())
    )
    pack, content = packing.finish() if known else (None, b"")
    manifest = alter(
        Manifest(
            namespace=NAMESPACE,
            name=NAME,
            domain=NAMESPACE,
            key=domain.id,
            facts=FACTS,
            files=told,
            packs=(pack,) if pack else (),
        )
    )
    signer = signer or Ed25519PrivateKey.generate()
    record = keys.new_record(NAMESPACE, domain, WRAPPING, NONCE)
    key = names.manifest_key(NAMESPACE, NAME)
    objects = {
        names.record_key(NAMESPACE, domain.id): keys.encode(record),
        key: signing.signed(manifests.encode(manifest), signer),
    }
    if pack:
        objects[names.pack_key(NAMESPACE, pack.name)] = bytes(content)
    return Made(manifest, objects, domain, signer, key)


def _pieces(
    body: bytes, domain: DomainKey, packing: Packing, known: dict[bytes, int]
) -> list[Piece]:
    pieces: list[Piece] = []
    for at in range(0, len(body), chunks.CHUNK):
        contents = body[at : at + chunks.CHUNK]
        if chunks.is_zero(contents):
            pieces.append(Zeros(len(contents)))
            continue
        name = domain.name(contents)
        if name not in known:
            known[name], into = packing.place(name, len(contents))
            domain.seal(name, contents, into)
        pieces.append(Chunks(0, known[name], 1))
    return pieces


def opened(made: Made, objects: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files, read by our code from these objects. Raises Unusable."""
    content, signature = signing.split(objects[made.key], manifests.MAX_MANIFEST)
    signing.check(content, signature, made.trusted)
    manifest = manifests.decode(content)
    record_key = names.record_key(manifest.domain, manifest.key)
    record = keys.decode(objects[record_key], manifest.domain, manifest.key)
    domain = keys.unwrap(record, {keys.wrapping_id(WRAPPING): WRAPPING})
    bodies = [objects[key] for key in manifest.pack_keys]
    for pack, body in zip(manifest.packs, bodies, strict=True):
        packs.check(pack.name, body)
    return {file.path: _body(file, manifest.packs, bodies, domain) for file in manifest.files}


def _body(file: File, listed: tuple[Pack, ...], bodies: list[bytes], domain: DomainKey) -> bytes:
    found = b""
    for piece in file.content:
        if isinstance(piece, Zeros):
            found += bytes(piece.size)
            continue
        pack, body = listed[piece.pack], bodies[piece.pack]
        for number in range(piece.first, piece.first + piece.count):
            chunk, begin = pack.chunks[number], pack.offsets[number]
            contents = bytearray(chunk.size)
            sealed = body[begin : begin + chunk.size + chunks.TAG]
            domain.open(chunk.name, sealed, memoryview(contents))
            found += contents
    return found
