"""
What people type for a store, and what it is: a folder, `s3://BUCKET/PREFIX`, or `peer://HOST:PORT`.

Called by: `kyb checkpoint`, the node agent (`--checkpoint-store`: no peer, for what is lent is only
read). Who we are to a bucket's server the environment says, as for other tools: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION; and to an agent: KYB_PEER_TLS.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import grpc

from kybernate.clients.errors import Refused
from kybernate.stores.bucket import Access, Bucket
from kybernate.stores.nvme import Nvme
from kybernate.stores.peer import Peer
from kybernate.stores.port import Store

EXPECTED = "a folder, or s3://BUCKET or s3://BUCKET/PREFIX"
PEER_TLS = "KYB_PEER_TLS"  # a folder, as the Secret kyb-nodeagent-client-tls is mounted
_SCHEME, _PEER = "s3://", "peer://"
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._/-]*))?")
_ADDRESS = re.compile(r"peer://((?:[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]+\]):[0-9]{1,5})")


class BadPlace(Refused):
    """This is no place for a store."""


def is_bucket(text: str) -> bool:
    """Whether it means a bucket, rightly written or not."""
    return text.startswith(_SCHEME)


def is_peer(text: str) -> bool:
    """Whether it means another agent's store, rightly written or not."""
    return text.startswith(_PEER)


def peer(text: str, environ: Mapping[str, str]) -> Peer:
    """What the agent at this address lends, to be read. Nothing is asked yet. Raises BadPlace."""
    found = _ADDRESS.fullmatch(text)
    if not found:
        raise BadPlace(f"{text}: no agent (expected peer://HOST:PORT, as its GpuNode's endpoint)")
    folder = environ.get(PEER_TLS, "")
    if not folder:
        raise BadPlace(
            f"{text}: {PEER_TLS} is not set (expected the folder with tls.crt, tls.key and ca.crt "
            "of the Secret kyb-nodeagent-client-tls)"
        )
    _credentials(Path(folder))
    return Peer(found[1], lambda: _credentials(Path(folder)))


def _credentials(folder: Path) -> grpc.ChannelCredentials:
    try:
        authority, key, certificate = (
            (folder / part).read_bytes() for part in ("ca.crt", "tls.key", "tls.crt")
        )
    except OSError as problem:
        raise BadPlace(f"{PEER_TLS}={folder}: {problem.filename}: {problem.strerror}") from None
    return grpc.ssl_channel_credentials(authority, key, certificate)


def access(text: str, environ: Mapping[str, str]) -> Access:
    """To the bucket of this text. Raises BadPlace."""
    found = _S3.fullmatch(text)
    if not found:
        raise BadPlace(f"{text}: no bucket (expected s3://BUCKET or s3://BUCKET/PREFIX)")
    return Access(
        bucket=found[1],
        prefix=(found[2] or "").strip("/"),
        endpoint=environ.get("AWS_ENDPOINT_URL", ""),
        region=environ.get("AWS_REGION", "us-east-1"),
        key_id=environ.get("AWS_ACCESS_KEY_ID", ""),
        secret=environ.get("AWS_SECRET_ACCESS_KEY", ""),
    )


def store(text: str, environ: Mapping[str, str]) -> Store:
    """One try each: whoever needs more puts `retrying` around it. A folder is made where it is not
    there. Raises BadPlace, and what the store raises."""
    if is_bucket(text):
        return Bucket(access(text, environ))
    folder = Path(text)
    if "://" in text or not folder.is_absolute():
        raise BadPlace(f"{text}: no place for a store (expected {EXPECTED}; a folder from / on)")
    return Nvme(folder)
