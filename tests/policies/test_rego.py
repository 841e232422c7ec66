"""Rego's own checks, as the Makefile runs them, so that a red one is seen in any test run."""

import subprocess
from pathlib import Path

import pytest

from policies.shipped import FOLDER

COVERED = 95  # percent of lines at least


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["check", "--strict", "--schema=schemas", "kyb"], id="types"),
        pytest.param(["fmt", "--fail", "--list", "kyb"], id="format"),
        pytest.param(["test", "kyb"], id="tests"),
        pytest.param(["test", "--coverage", f"--threshold={COVERED}", "kyb"], id="coverage"),
    ],
)
def test_rego_is_clean(opa_program: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [opa_program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
