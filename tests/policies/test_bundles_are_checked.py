"""Which policies are published, and what is said about those that are not."""

import io
import tarfile
from pathlib import Path

import orjson
import pytest

from controller import bundles
from controller.bundles import Bundle, BundleRefused, OpaUnusable
from kybernate.api import policy_files
from policies import shipped

PREEMPTION = "kyb/preemption/preemption.rego"
TIMESLICE = "kyb/timeslice/timeslice.rego"
CLASSES = "data/classes.json"
FILES = shipped.files()


def _refused(opa_program: Path, changes: dict[str, str | None]) -> list[str]:
    changed = {path: text for path, text in {**FILES, **changes}.items() if text is not None}
    with pytest.raises(BundleRefused) as caught:
        bundles.build(changed, opa_program)
    assert caught.value.revision == policy_files.revision_of(changed)
    return list(caught.value.reasons)


def test_the_shipped_policies_are_a_bundle(bundle: Bundle) -> None:
    with tarfile.open(fileobj=io.BytesIO(bundle.content)) as archive:
        names = {member.name for member in archive.getmembers()}
        manifest = archive.extractfile("/.manifest")
        assert manifest is not None
        said = orjson.loads(manifest.read())
    assert (said["revision"], said["roots"]) == (bundle.revision, ["kyb"])
    assert bundle.revision == policy_files.revision_of(FILES)
    assert not any("_test" in name or "schema" in name for name in names)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        pytest.param(
            {PREEMPTION: FILES[PREEMPTION] + "\nbroken :=\n"},
            ["kyb/preemption/preemption.rego:"],
            id="a-syntax-error",
        ),
        pytest.param(
            {PREEMPTION: FILES[PREEMPTION].replace("verdict :=", "verdikt :=")},
            ['entrypoint "kyb/preemption/verdict" does not refer to a rule'],
            id="a-missing-entrypoint",
        ),
        pytest.param(
            {
                PREEMPTION: "package kyb.preemption\n\n"
                'verdict := v if {\n\tv := object.get(input, "verdict", null)\n\tv != null\n}\n\n'
                'judge(_) := {"allow": false, "reason": "No", "retry_seconds": null}\n'
            },
            ["kyb.preemption.verdict is undefined for an ordinary question"],
            id="an-undefined-verdict",
        ),
        pytest.param(
            {
                PREEMPTION: 'package kyb.preemption\n\nverdict := {"allow": "yes"}\n\n'
                'judge(_) := {"allow": false, "reason": "No", "retry_seconds": null}\n'
            },
            [
                "kyb.preemption.verdict is not a verdict: allow: 'yes' (expected true or false)",
                "kyb.preemption.verdict is not a verdict: reason: None",
            ],
            id="a-verdict-of-another-shape",
        ),
        pytest.param(
            {PREEMPTION: FILES[PREEMPTION] + "\nnow := time.now_ns()\n"},
            ["undefined function time.now_ns"],
            id="a-builtin-that-asks-the-clock",
        ),
        pytest.param(
            {"kyb/mine/mine.rego": 'package kyb.mine\n\nx := http.send({"url": "http://a"})\n'},
            ["kyb/mine/mine.rego:3: undefined function http.send"],
            id="a-builtin-that-asks-the-network",
        ),
        pytest.param(
            {TIMESLICE: FILES[TIMESLICE].replace("input.waiting", "input.waitng")},
            ["undefined ref: input.waitng"],
            id="a-member-that-no-question-has",
        ),
        pytest.param(
            {CLASSES: "{", "data/turns.json": '{"collation_max_wait_seconds": "30"}'},
            [
                "data/classes.json: not JSON",
                "data/turns.json: $: 'switches_per_minute_max' is a required property",
                "data/turns.json: $.collation_max_wait_seconds: '30' is not of type 'number'",
            ],
            id="data-that-are-garbled",
        ),
        pytest.param(
            {CLASSES: FILES[CLASSES].replace("min_runtime_seconds", "min_runtime_second")},
            ["data/classes.json: $.inference: Additional properties are not allowed"],
            id="a-setting-that-is-misspelt",
        ),
        pytest.param(
            {CLASSES: None}, ["kyb.timeslice.verdict is undefined"], id="data-that-are-absent"
        ),
        pytest.param(
            {"data/odd.json": "[]"}, ["data/odd.json: not an object"], id="data-of-a-list"
        ),
        pytest.param(
            {"../../etc/passwd": "x", "data/../x.json": "{}"},
            ["'../../etc/passwd'", "'data/../x.json'"],
            id="paths-that-lead-elsewhere",
        ),
        pytest.param(
            {"schemas/settings/turns.json": '{"$ref": "http://127.0.0.1:9/x"}'},
            ["data/turns.json: its schema cannot be used"],
            id="a-schema-from-the-network",
        ),
    ],
)
def test_policies_are_refused_with_every_reason(
    opa_program: Path, changes: dict[str, str | None], reasons: list[str]
) -> None:
    said = _refused(opa_program, changes)
    for reason in reasons:
        assert any(reason in one for one in said), said
    assert not any("/tmp/" in one for one in said), said


def test_faults_of_data_and_of_rego_are_told_together(opa_program: Path) -> None:
    said = _refused(opa_program, {CLASSES: "{", PREEMPTION: "package kyb.preemption\nx :=\n"})
    assert any(one.startswith("data/classes.json") for one in said)
    assert any(one.startswith(PREEMPTION) for one in said)


def test_no_policies_at_all_are_refused(opa_program: Path) -> None:
    with pytest.raises(BundleRefused):
        bundles.build({}, opa_program)


def test_an_opa_that_does_not_run_is_no_fault_of_the_policies(tmp_path: Path) -> None:
    with pytest.raises(OpaUnusable, match="no-such-opa"):
        bundles.build(FILES, tmp_path / "no-such-opa")


def test_the_revision_follows_policies_and_data_and_nothing_else() -> None:
    revision = policy_files.revision_of(FILES)
    assert revision.startswith("sha256:")
    assert len(revision) == len("sha256:") + 12
    assert policy_files.revision_of(dict(reversed(FILES.items()))) == revision
    assert policy_files.revision_of({**FILES, CLASSES: FILES[CLASSES] + " "}) != revision
    assert policy_files.revision_of({**FILES, "schemas/preemption.json": "{}"}) == revision
    # What ends one file cannot begin the next.
    assert policy_files.revision_of({"data/a.json": "xy", "data/b.json": ""}) != (
        policy_files.revision_of({"data/a.json": "x", "data/b.json": "y"})
    )
