"""Golden cases: `policies/testdata/<package>/<case>.input.json` and what policy says to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from kybernate.api import policy
from kybernate.clients.opa import OpaPolicy
from kybernate.model.ids import NO_REVISION
from kybernate.model.verdict import Refusal
from policies.shipped import FOLDER

CASES = sorted((FOLDER / "testdata").glob("*/*.input.json"))
WRITERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "admission": policy.write_admission,
    "placement": policy.write_placement,
    "preemption": policy.write_preemption,
    "retention": policy.write_retention,
    "sharing": policy.write_sharing,
    "tiering": policy.write_tiering,
    "timeslice": policy.write_timeslice,
}

cases = pytest.mark.parametrize(
    "path",
    [
        pytest.param(one, id=f"{one.parent.name}: {one.name.removesuffix('.input.json')}")
        for one in CASES
    ],
)


def _read_output(package: str, path: Path, question: Any) -> Any:
    result = orjson.loads(path.with_name(path.name.replace(".input.", ".output.")).read_bytes())
    if package == "timeslice":
        return policy.read_timeslice(result, question, NO_REVISION)
    return getattr(policy, f"read_{package}")(result, NO_REVISION)


@cases
def test_the_verdict_is_as_recorded(
    path: Path, opa_policy: OpaPolicy, read_question: Callable[[str, Path], Any]
) -> None:
    package = path.parent.name
    question = read_question(package, path)
    verdict = getattr(opa_policy, package)(question)
    assert not isinstance(verdict, Refusal)
    recorded = _read_output(package, path, question)
    fields = {name for name in type(verdict).__slots__ if name != "revision"}
    assert {name: getattr(verdict, name) for name in fields} == {
        name: getattr(recorded, name) for name in fields
    }


@cases
def test_the_input_fits_its_schema(path: Path) -> None:
    schema = orjson.loads((FOLDER / "schemas" / f"{path.parent.name}.json").read_bytes())
    jsonschema.Draft7Validator(schema).validate(orjson.loads(path.read_bytes()))


@cases
def test_the_question_is_written_as_its_input(
    path: Path, read_question: Callable[[str, Path], Any]
) -> None:
    package = path.parent.name
    assert WRITERS[package](read_question(package, path)) == orjson.loads(path.read_bytes())


def test_every_input_has_its_output_and_every_package_its_cases() -> None:
    outputs = sorted((FOLDER / "testdata").glob("*/*.output.json"))
    assert [one.name.replace(".output.", ".input.") for one in outputs] == [
        one.name for one in CASES
    ]
    assert {one.parent.name for one in CASES} == set(WRITERS)
