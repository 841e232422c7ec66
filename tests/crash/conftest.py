"""
A node with one simulated GPU and a real agent that is really killed. What is real and what is not:
`kybernate/testing/agentnode.py`.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kybernate.testing.agentnode import AgentNode


@pytest.fixture
def node() -> Iterator[AgentNode]:
    """The node, its agent not started yet. Its folder is short: unix sockets' paths are."""
    with tempfile.TemporaryDirectory(prefix="kyb-") as folder, AgentNode(Path(folder)) as started:
        yield started
