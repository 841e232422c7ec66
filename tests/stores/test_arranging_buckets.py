"""Buckets made and looked at: by moto where edges are told, and on the real object server."""

import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from click.testing import Result
from moto import mock_aws
from typer.testing import CliRunner

from kyb.__main__ import app
from kybernate.stores import arranging
from kybernate.stores.arranging import RULE, Arranging
from kybernate.stores.bucket import Access
from kybernate.stores.errors import Away, Denied
from testbed.objectserver import KEY_ID, SECRET, ObjectServer

ACCESS = Access(bucket="models", prefix="kyb", key_id="a", secret="b")


@pytest.fixture
def s3() -> Iterator[Any]:
    """moto's S3."""
    with mock_aws():
        yield boto3.client("s3", region_name="us-east-1")


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_what_is_missing_is_made_once(s3: Any, region: str) -> None:
    there = Arranging(Access(bucket="models", prefix="kyb", region=region, key_id="a", secret="b"))
    assert not there.standing().there
    first = there.prepare()
    assert first.there
    assert first.unfinished
    assert there.prepare() == first
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket="models")["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert rule["Filter"] == {"Prefix": "kyb/"}


def test_rules_of_others_stay(s3: Any) -> None:
    s3.create_bucket(Bucket="models")
    theirs = {
        "ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 9},
    }  # fmt: skip
    s3.put_bucket_lifecycle_configuration(
        Bucket="models", LifecycleConfiguration={"Rules": [theirs]}
    )
    assert Arranging(ACCESS).prepare().expires == ()
    rules = s3.get_bucket_lifecycle_configuration(Bucket="models")["Rules"]
    assert [one["ID"] for one in rules] == ["logs", RULE]


@pytest.mark.parametrize(
    ("rule", "unfinished", "expires"),
    [
        ({"Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}},
         True, False),
        ({"Filter": {"Prefix": "other/"},
          "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}}, False, False),
        ({"Filter": {"Prefix": ""}, "Expiration": {"Days": 3}}, False, True),
        ({"Filter": {"Prefix": "kyb/manifests/"}, "Expiration": {"Days": 3}}, False, True),
        ({"Filter": {"Prefix": "kyb/"}, "Expiration": {"Days": 3}, "Status": "Disabled"}, False,
         False),
    ],
)  # fmt: skip
def test_rules_are_judged_by_where_they_count(
    s3: Any, rule: dict[str, Any], unfinished: bool, expires: bool
) -> None:
    s3.create_bucket(Bucket="models")
    whole = {"ID": "theirs", "Status": "Enabled", **rule}
    s3.put_bucket_lifecycle_configuration(
        Bucket="models", LifecycleConfiguration={"Rules": [whole]}
    )
    found = Arranging(ACCESS).standing()
    assert found.unfinished is unfinished
    assert bool(found.expires) is expires


def test_old_versions_are_told(s3: Any) -> None:
    s3.create_bucket(Bucket="models")
    assert not Arranging(ACCESS).standing().keeps_versions
    s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    assert Arranging(ACCESS).standing().keeps_versions


def test_what_is_there_is_counted_by_kind(s3: Any) -> None:
    s3.create_bucket(Bucket="models")
    for number in range(1005):
        s3.put_object(Bucket="models", Key=f"kyb/domains/d/packs/aa/{number}", Body=b"xy")
    parked = "kyb/parked/node-a/uid.copy/domains/parked/packs/aa/1"
    for key in ("kyb/manifests/d/one", parked, "kyb/domains/d/keys/k.json", "kyb/odd", "elsewhere"):
        s3.put_object(Bucket="models", Key=key, Body=b"x")
    s3.create_multipart_upload(Bucket="models", Key="kyb/half")
    found = Arranging(ACCESS).inventory()
    assert found.objects == {"packs": 1005, "manifests": 1, "keys": 1, "parked": 1, "others": 1}
    assert found.sizes["packs"] == 2010
    assert found.uploads == 1


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("AccessDenied", 403, Denied), ("SlowDown", 503, Away), ("InternalError", 500, Away)],
)
def test_a_server_that_says_no_is_told_in_our_words(
    s3: Any, monkeypatch: pytest.MonkeyPatch, code: str, status: int, kind: type[Exception]
) -> None:
    there = Arranging(ACCESS)

    def say_no(**_: object) -> None:
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(answer, "HeadBucket")  # type: ignore[arg-type]

    monkeypatch.setattr(there._s3, "head_bucket", say_no)
    for ask in (there.standing, there.prepare):
        with pytest.raises(kind, match=code):
            ask()


def test_a_server_without_such_rules_is_no_fault(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.create_bucket(Bucket="models")
    there = Arranging(ACCESS)

    def unknown(**_: object) -> None:
        answer = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
        raise ClientError(answer, "GetBucketLifecycle")  # type: ignore[arg-type]

    monkeypatch.setattr(there._s3, "get_bucket_lifecycle_configuration", unknown)
    assert there.prepare().unfinished is None


def test_nobody_there() -> None:
    there = Arranging(Access(bucket="models", endpoint="http://127.0.0.1:9", key_id="a"))
    with pytest.raises(Away):
        there.standing()


def _kyb(*words: str) -> Result:
    return CliRunner().invoke(app, ["store", *words])


def test_on_the_real_server_by_the_command(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    place = f"s3://kyb-{uuid.uuid4().hex[:8]}/store"
    before = _kyb("check", place)
    assert before.exit_code == 1
    assert "missing" in before.output
    made = _kyb("prepare", place)
    assert made.exit_code == 0, made.output + made.stderr
    assert _kyb("prepare", place).output == made.output
    checked = _kyb("check", place)
    assert checked.exit_code == 0
    assert "unfinished uploads" in checked.output
    assert "uploads that nobody finishes end by a rule" in " ".join(checked.output.split())
    assert _kyb("check", "models").exit_code == 1


def test_names_of_kinds() -> None:
    assert arranging._kind("domains/d/intents/x") == "others"
    assert arranging._kind("domains/d/packs/aa/x") == "packs"
