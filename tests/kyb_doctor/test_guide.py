"""The guide says what the doctor checks."""

from pathlib import Path

from kyb.doctor import checks, supported
from kyb.nodefiles import distributions, plan, snippet

GUIDE = (Path(__file__).parents[2] / "docs/how-to/prepare-a-node.md").read_text()


def test_the_table_of_versions_is_the_one_the_doctor_goes_by() -> None:
    for one in supported.ALL:
        assert f"| {one.name} | {one.oldest} | {one.tried} | {one.why} |" in GUIDE


def test_every_check_is_in_the_guide(good) -> None:
    rows = "".join(line for line in GUIDE.splitlines() if line.startswith("| "))
    for one in checks.examine(good):
        assert one.check in rows, one.check


def test_the_snippet_and_the_paths_are_those_that_are_written() -> None:
    text = snippet.Snippet(program=plan.PROGRAM, systemd_cgroup=True).text()
    assert text.partition("\n")[2] in GUIDE
    assert f"{plan.USUAL_FOLDER}/{snippet.NAME}" in GUIDE
    assert distributions.RESTART in GUIDE
