"""
The exchange with a kubelet, beside what a real one said: registration, a pod's seat, a restart that
wipes every socket, registration again, the next pod's seat.

Recorded from a real kubelet by tests/node/test_the_kubelets_exchange.py. Here the kubelet's side is
the light node's: whatever it says, and whatever it is answered, must be as it was there.
"""

import subprocess
import sys
from pathlib import Path

from kybernate.testing import exchanges

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
ONE = "kyb.ai/gpu-1x-seat"


def test_a_fake_kubelet_says_what_a_real_one_said(kubelet, work, until):
    file = work / "exchange.jsonl"
    side = kubelet()
    argv = [
        sys.executable, HERE / "recorder.py", file, f"--profiles={GOLDEN / 'profiles.yaml'}",
        "--inventory=listed", f"--plugin-dir={work / 'plugins'}",
        f"--agent-socket={work / 'nobody.sock'}", "--metrics-listen=127.0.0.1:0",
    ]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as plugin:
        try:
            until(lambda: side.counts() == {ONE: (2, 2)})
            side.admit("first", "main", {ONE: 1})
            side = kubelet()
            until(lambda: side.counts() == {ONE: (2, 2)})
            side.admit("second", "main", {ONE: 1})
        finally:
            plugin.terminate()
    assert exchanges.text(file.read_text()) == (GOLDEN / "exchange.jsonl").read_text()
