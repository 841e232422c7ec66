"""The shipped files, as they stand in the folder, in the ConfigMap and in the bundle."""

import json
import re

import orjson
import pytest
import yaml

from kybernate.api import policy_files
from kybernate.api.errors import Malformed
from policies.shipped import FOLDER, files

FILES = files()


def test_keys_of_the_configmap_read_back_as_paths() -> None:
    keys = policy_files.to_keys(FILES)
    assert policy_files.from_keys(keys) == FILES
    assert all(re.fullmatch(r"[-._a-zA-Z0-9]+", key) for key in keys)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("..__..__etc__passwd", id="up"),
        pytest.param("__kyb__a__a.rego", id="absolute"),
        pytest.param("kyb__a__..__b.rego", id="up-within"),
        pytest.param("kyb__a.rego", id="no-package"),
        pytest.param("kyb__settings__classes__data.json", id="data-in-disguise"),
        pytest.param("data__classes.yaml", id="yaml"),
        pytest.param("readme.md", id="something-else"),
        pytest.param("", id="empty"),
    ],
)
def test_a_key_that_is_no_policys_is_refused(key: str) -> None:
    with pytest.raises(Malformed) as caught:
        policy_files.from_keys({**policy_files.to_keys(FILES), key: "x", "also-odd": "y"})
    assert len(caught.value.faults) == 2


def test_the_configmap_has_every_shipped_file() -> None:
    made = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    (generator,) = made["configMapGenerator"]
    listed = dict(line.split("=", 1) for line in generator["files"])
    assert {key: path for path, key in ((p, p.replace("/", "__")) for p in FILES)} == listed
    assert generator["name"] == "kyb-policies"
    assert generator["options"]["disableNameSuffixHash"] is True


def test_every_data_file_has_a_schema_and_every_schema_something_to_describe() -> None:
    data = {path.removeprefix("data/") for path in FILES if path.startswith("data/")}
    described = {
        path.removeprefix("schemas/settings/")
        for path in FILES
        if path.startswith("schemas/settings/")
    }
    assert described == data
    packages = {entry.split("/")[1] for entry in policy_files.ENTRYPOINTS}
    assert {f"schemas/{package}.json" for package in packages} <= set(FILES)


def test_both_questions_about_tenants_describe_them_alike() -> None:
    preemption, timeslice = (
        json.loads(FILES[f"schemas/{package}.json"])["definitions"]
        for package in ("preemption", "timeslice")
    )
    assert preemption == timeslice


def test_every_reason_that_was_ever_recorded_is_documented() -> None:
    """METADATA of each package names its reasons, the words that events show."""
    declared = {
        path.split("/")[1]: set(re.findall(r"^#     ([A-Z]\w+): ", text, re.MULTILINE))
        for path, text in FILES.items()
        if path.endswith(".rego")
    }
    declared["timeslice"] |= declared["preemption"]
    for case in (FOLDER / "testdata").glob("*/*.output.json"):
        verdict = orjson.loads(case.read_bytes())
        denials = verdict.get("deny", [])
        if case.parent.name == "admission":
            found = {denial["reason"] for denial in denials}
        else:
            found = {verdict[name] for name in ("reason",) if name in verdict}
        assert found <= declared[case.parent.name], case.name
