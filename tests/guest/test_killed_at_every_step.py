"""kill -9 at each change the agent makes to a file while it parks and resumes: nothing is lost."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

MIB = 2**20
CHUNK = 2 * MIB
_AGENT = Path(__file__).with_name("agent.py")

pytestmark = pytest.mark.crash


@pytest.fixture(scope="module")
def folder():
    made = Path(tempfile.mkdtemp(prefix="kyb-k-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)  # without their socket the workers end


@pytest.fixture(scope="module")
def agent(folder, libraries, node_on):
    """Asks the process that plays agents; and makes programs for it."""
    node = node_on(folder, libraries, agent=False)
    process = subprocess.Popen(
        [sys.executable, str(_AGENT), str(folder)], env=node.environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def ask(*words):
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    ask.program = node.program
    yield ask
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_wherever_the_agent_is_killed_the_old_or_the_new_copy_is_whole(agent):
    with agent.program() as told:
        pid, at = told.process.pid, told.alloc(4 * CHUNK)
        told.clear(at, 4 * CHUNK)
        told.fill(at, 3 * CHUNK, 1)
        whole = agent(pid, "turn", -1)
        assert whole["told"]["mark"] == "active", whole
        for change in range(1000):
            told.fill(at + CHUNK, CHUNK, 100 + change)  # one chunk differs from the older copy
            was = told.hashed(at, 4 * CHUNK)
            found = agent(pid, "turn", change)
            if found["told"]:
                break
            assert found["ended"] == signal.SIGKILL
            settled = agent(pid, "settle", -1)
            assert settled["told"]["mark"] == "active", (change, settled)
            assert told.hashed(at, 4 * CHUNK) == was, change
        assert change > 20
        assert found["told"]["used"] == whole["told"]["used"]
