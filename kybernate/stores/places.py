"""
What people type for a store, and what it is: a folder, or `s3://BUCKET/PREFIX`.

Called by: `kyb checkpoint`, the node agent (`--checkpoint-store`). Who we are to a bucket's server
the environment says, as for other tools: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, AWS_REGION.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from kybernate.clients.errors import Refused
from kybernate.stores.bucket import Access, Bucket
from kybernate.stores.nvme import Nvme
from kybernate.stores.port import Store

EXPECTED = "a folder, or s3://BUCKET or s3://BUCKET/PREFIX"
_SCHEME = "s3://"
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._/-]*))?")


class BadPlace(Refused):
    """This is no place for a store."""


def is_bucket(text: str) -> bool:
    """Whether it means a bucket, rightly written or not."""
    return text.startswith(_SCHEME)


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
