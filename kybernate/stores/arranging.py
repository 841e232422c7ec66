"""
Buckets themselves, by boto3: made, with the rules a store needs, and what is in them, counted.

Called by: `kyb store`. Objects are `bucket`'s. Rule: one look, one plan, then what is missing is
made and looked at again: doing it twice changes nothing. Rule: rules of a lifecycle that others
made stay as they are; ours has a name, and what is not ours is never taken away.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kybernate.stores.bucket import Access
from kybernate.stores.errors import Away, Denied

RULE = "kybernate-unfinished-uploads"
UNFINISHED_DAYS = 1  # an upload in parts that nobody finished is nothing after a day
_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"})
_ABSENT = frozenset({"404", "NoSuchBucket", "NoSuchLifecycleConfiguration", "NotFound"})
_UNKNOWN = frozenset({"NotImplemented", "MethodNotAllowed", "501"})
_OURS = frozenset({"BucketAlreadyOwnedByYou"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a bucket is like. `unfinished`: whether uploads that nobody finished go by a rule, None
    where the server knows no such rules. `keeps_versions`: whether what is deleted stays as an
    older version, and costs on. `expires`: names of rules that delete objects below our prefix."""

    there: bool
    unfinished: bool | None = None
    keeps_versions: bool = False
    expires: tuple[str, ...] = ()
    rules: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Objects and bytes by kind (`manifests`, `packs`, `keys`, `parked`, which are contents of what
    is parked on nodes, `others`), and uploads that are not finished."""

    objects: Mapping[str, int]
    sizes: Mapping[str, int]
    uploads: int


class Arranging:
    """One bucket. All raise Away, Denied."""

    def __init__(self, access: Access) -> None:
        """Nothing is asked yet."""
        self._access = access
        keys = {}
        if access.key_id:
            keys = {"aws_access_key_id": access.key_id, "aws_secret_access_key": access.secret}
        path_style = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 3},
            s3={"addressing_style": "path"} if access.endpoint else {},
        )
        self._s3 = boto3.client(
            "s3",
            region_name=access.region,
            endpoint_url=access.endpoint or None,
            config=path_style,
            **keys,
        )

    def standing(self) -> Standing:
        """A look."""
        with _told(self._access.bucket):
            if not self._is_there():
                return Standing(there=False)
            rules = self._rules()
            return Standing(
                there=True,
                unfinished=None if rules is None else any(map(self._ends_uploads, rules)),
                keeps_versions=self._keeps_versions(),
                expires=tuple(one.get("ID", "?") for one in rules or () if self._expires(one)),
                rules=tuple(rules or ()),
            )

    def prepare(self) -> Standing:
        """Have the bucket, and the rule for unfinished uploads; what it is like then."""
        standing = self.standing()
        with _told(self._access.bucket):
            if not standing.there:
                self._make()
                standing = self.standing()
            if standing.unfinished is False:
                self._put_rule(standing.rules)
        return self.standing()

    def inventory(self) -> Inventory:
        """Count what lies below the prefix; a question for each thousand objects."""
        objects: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        with _told(self._access.bucket):
            for one in self._pages("list_objects_v2", "Contents"):
                kind = _kind(one["Key"].removeprefix(self._below).lstrip("/"))
                objects[kind] += 1
                sizes[kind] += one["Size"]
            uploads = sum(1 for _ in self._pages("list_multipart_uploads", "Uploads"))
        return Inventory(objects=dict(objects), sizes=dict(sizes), uploads=uploads)

    @property
    def _below(self) -> str:
        return f"{self._access.prefix}/" if self._access.prefix else ""

    def _pages(self, question: str, what: str) -> Iterator[Mapping[str, Any]]:
        pages = self._s3.get_paginator(question).paginate(
            Bucket=self._access.bucket, Prefix=self._below
        )
        for page in pages:
            yield from page.get(what, ())

    def _is_there(self) -> bool:
        try:
            self._s3.head_bucket(Bucket=self._access.bucket)
        except ClientError as error:
            if _code(error) in _ABSENT:
                return False
            raise
        return True

    def _make(self) -> None:
        where = {}
        if not self._access.endpoint and self._access.region != "us-east-1":
            place = {"LocationConstraint": self._access.region}
            where = {"CreateBucketConfiguration": place}
        try:
            self._s3.create_bucket(Bucket=self._access.bucket, **where)
        except ClientError as error:
            if _code(error) not in _OURS:  # somebody else of us was faster
                raise

    def _rules(self) -> list[Mapping[str, Any]] | None:
        """None where the server has no such thing."""
        try:
            found = self._s3.get_bucket_lifecycle_configuration(Bucket=self._access.bucket)
        except ClientError as error:
            if _code(error) in _ABSENT:
                return []
            if _code(error) in _UNKNOWN:
                return None
            raise
        return list(found.get("Rules", ()))

    def _put_rule(self, rules: Sequence[Mapping[str, Any]]) -> None:
        ours = {
            "ID": RULE,
            "Status": "Enabled",
            "Filter": {"Prefix": self._below},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
        }
        others = [one for one in rules if one.get("ID") != RULE]
        self._s3.put_bucket_lifecycle_configuration(
            Bucket=self._access.bucket, LifecycleConfiguration={"Rules": [*others, ours]}
        )

    def _keeps_versions(self) -> bool:
        try:
            found = self._s3.get_bucket_versioning(Bucket=self._access.bucket)
        except ClientError as error:
            if _code(error) in _ABSENT | _UNKNOWN:
                return False
            raise
        return bool(found.get("Status") == "Enabled")

    def _ends_uploads(self, rule: Mapping[str, Any]) -> bool:
        return _is_on(rule) and self._covers(rule) and "AbortIncompleteMultipartUpload" in rule

    def _expires(self, rule: Mapping[str, Any]) -> bool:
        """Whether it deletes objects that may be ours."""
        prefix = _prefix(rule)
        meets = prefix.startswith(self._below) or self._below.startswith(prefix)
        ends = {"Days", "Date"} & set(rule.get("Expiration", {}))
        return _is_on(rule) and bool(ends) and meets

    def _covers(self, rule: Mapping[str, Any]) -> bool:
        return self._below.startswith(_prefix(rule))


def _is_on(rule: Mapping[str, Any]) -> bool:
    return rule.get("Status") == "Enabled"


def _prefix(rule: Mapping[str, Any]) -> str:
    """Below which it counts; "" is all."""
    narrowed = rule.get("Filter") or {}
    both = narrowed.get("And") or {}
    return str(rule.get("Prefix") or narrowed.get("Prefix") or both.get("Prefix") or "")


def _kind(key: str) -> str:
    parts = key.split("/")
    if parts[0] in ("manifests", "parked"):
        return parts[0]
    return parts[2] if len(parts) > 3 and parts[2] in ("packs", "keys") else "others"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _told(bucket: str) -> Iterator[None]:
    """botocore's errors in our words."""
    try:
        yield
    except ClientError as error:
        text = f"bucket {bucket}: {error.operation_name}: {_code(error)}"
        if _code(error) in _DENIED or error.response["ResponseMetadata"]["HTTPStatusCode"] == 403:
            raise Denied(text) from None
        raise Away(text) from None
    except BotoCoreError as error:
        raise Away(f"bucket {bucket}: {str(error)[:200]}") from None
