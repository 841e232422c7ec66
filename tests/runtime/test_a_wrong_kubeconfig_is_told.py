"""Every process ends with a sentence where its kubeconfig cannot be used. The programs are real."""

import subprocess
import sys
from pathlib import Path

import pytest

PROFILES = "profiles:\n- {name: a, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 1}\n"


@pytest.mark.parametrize("process", ["controller", "extender", "webhook", "nodeagent"])
def test_a_kubeconfig_that_is_not_there_is_named(process: str, tmp_path: Path) -> None:
    (tmp_path / "profiles.yaml").write_text(PROFILES)
    more = {
        "webhook": [f"--tls-dir={tmp_path}"],
        "nodeagent": ["--node=n", f"--profiles={tmp_path / 'profiles.yaml'}"],
    }
    argv = [sys.executable, "-m", process, "--kubeconfig=/absent/config", *more.get(process, [])]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "/absent/config" in ended.stderr
    assert "Traceback" not in ended.stderr
