"""The Secrets of our certificates: values to objects and back. Pure but for PEM parsing.

`kyb-ca` holds the signer in `ca.crt` and `ca.key`, the next one in `next.crt` and `next.key`, and
those that sign no more in `previous.crt`. Every other Secret holds `tls.crt`, `tls.key` and, in
`ca.crt`, all authorities trusted now, so that one write changes a whole identity at once.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller import pki
from controller.certificates import Authority, Holding, Mark
from controller.pki import KeyPair
from kybernate.api import names, timestamps

CA = "kyb-ca"
DISTRIBUTED = f"{names.GROUP}/distributed"
SETTLED = f"{names.GROUP}/settled"

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityFiles:
    """What `kyb-ca` holds. `previous` is a PEM bundle; keys are withheld from every repr."""

    signer: KeyPair
    next: KeyPair | None = None
    previous: bytes = b""

    @property
    def bundle(self) -> bytes:
        """The authorities everybody has to trust now, as PEM, each once."""
        upcoming = b"" if self.next is None else self.next.certificate
        return b"".join(pki.split(self.signer.certificate + upcoming + self.previous).values())


def read_authority_files(secret: Obj | None) -> AuthorityFiles | None:
    """None where there is no usable signer: one is made then."""
    data = decoded(secret)
    signer = KeyPair(data.get("ca.crt", b""), data.get("ca.key", b""))
    if pki.read(*_both(signer)) is None:
        return None
    upcoming = KeyPair(data.get("next.crt", b""), data.get("next.key", b""))
    return AuthorityFiles(
        signer=signer,
        next=None if pki.read(*_both(upcoming)) is None else upcoming,
        previous=data.get("previous.crt", b""),
    )


def read_authority(secret: Obj | None) -> Authority | None:
    """The same as the plan sees it."""
    files = read_authority_files(secret)
    signer = None if files is None else pki.read(files.signer.certificate)
    if files is None or secret is None or signer is None:
        return None
    previous = map(pki.read, pki.split(files.previous).values())
    annotations = secret["metadata"].get("annotations") or {}
    return Authority(
        signer=signer,
        next=None if files.next is None else pki.read(files.next.certificate),
        previous=tuple(certificate for certificate in previous if certificate is not None),
        distributed=read_mark(annotations.get(DISTRIBUTED)),
        settled=read_mark(annotations.get(SETTLED)),
    )


def read_holding(secret: Obj) -> Holding:
    """What a process proves itself with, and whom it trusts."""
    data = decoded(secret)
    certificate = pki.read(data.get("tls.crt", b""), data.get("tls.key", b""))
    return Holding(certificate=certificate, trust=pki.trust(trusted(secret)))


def trusted(secret: Obj) -> bytes:
    """The authorities a Secret trusts, as PEM."""
    return decoded(secret).get("ca.crt", b"")


def with_authority(secret: Obj, files: AuthorityFiles) -> Obj:
    """`kyb-ca` with these contents; its marks stay."""
    data = {"ca.crt": files.signer.certificate, "ca.key": files.signer.key}
    if files.next is not None:
        data |= {"next.crt": files.next.certificate, "next.key": files.next.key}
    if files.previous:
        data["previous.crt"] = files.previous
    return {**secret, "data": encoded(data)}


def with_mark(secret: Obj, name: str, of: str, now: float) -> Obj:
    """`kyb-ca` with this mark set to now."""
    metadata = secret["metadata"]
    marks = {**(metadata.get("annotations") or {}), name: f"{of} {timestamps.rfc3339_micro(now)}"}
    return {**secret, "metadata": {**metadata, "annotations": marks}}


def with_trust(secret: Obj, bundle: bytes) -> Obj:
    """The Secret of a process, trusting these authorities."""
    return {**secret, "data": {**(secret.get("data") or {}), **encoded({"ca.crt": bundle})}}


def with_identity(secret: Obj, pair: KeyPair, bundle: bytes) -> Obj:
    """The Secret of a process with a new certificate, trusting these authorities."""
    data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": bundle}
    return {**secret, "data": encoded(data)}


def new(namespace: str, name: str) -> Obj:
    """A Secret that does not exist yet."""
    labels = {"app.kubernetes.io/part-of": "kybernate"}
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {"metadata": metadata, "type": "Opaque" if name == CA else "kubernetes.io/tls"}


def _both(pair: KeyPair) -> tuple[bytes, bytes]:
    return pair.certificate, pair.key


def decoded(secret: Obj | None) -> dict[str, bytes]:
    """The decoded data; what is not base64 counts as absent, and is replaced."""
    found: dict[str, bytes] = {}
    for name, text in ((secret or {}).get("data") or {}).items():
        try:
            found[name] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
    return found


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    """As `data` of a Secret."""
    return {name: base64.b64encode(value).decode() for name, value in data.items()}


def read_mark(text: str | None) -> Mark | None:
    """As `with_mark` wrote it; None where it cannot be read."""
    of, _, at = (text or "").rpartition(" ")
    try:
        return Mark(of=of, at=timestamps.parse_rfc3339(at))
    except ValueError:
        return None
