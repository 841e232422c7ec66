"""
Many models on one card, asked directly by clients that know of nothing: each request wakes its
model. Nothing is lost, nothing is answered by another model, every client is answered in its order.

The same on the whole stack, with 30 models and 1,000 switches, is `make thousand-switches`.
Real: the agent, the simulated GPU, the models, the connections. Faked: the API server, OPA.
"""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from kybernate.model.workload import State
from kybernate.testing.agentnode import AgentNode, Pod, wait_for
from testbed.multiplex import workload
from testbed.multiplex.tally import Answer, Tally
from testbed.multiplex.workload import Request

MODELS, CLIENTS, REQUESTS, SWITCHES = 8, 5, 48, 24
SEATS = """\
profiles:
  - {name: gpu-1x-seat, resource: kyb.ai/gpu-1x-seat, groupSize: 1, seatsPerGroup: 8}
"""


@pytest.fixture
def models(tmp_path: Path) -> Iterator[dict[str, Pod]]:
    """By name, each loaded once; whoever is in the card has to leave at once for another."""
    with AgentNode(tmp_path, profiles=SEATS) as node:
        node.start_agent()
        names, pods = workload.models(MODELS), {}
        for number, name in enumerate(names):
            node.serve = ("testbed.vllm", "--model", name)
            pods[name] = node.start_pod(name, f"G0/{number}", vram="8Gi")
            wait_for(pods[name]._port, f"{name} serves")
        assert all(node.state_of(pod) in (State.ACTIVE, State.PARKED) for pod in pods.values())
        yield pods
        told = node.agent_log.count('"reason":"Resumed"')
        assert told >= SWITCHES, f"{told} switches are no test of them"


def test_every_request_is_answered_by_its_model_in_its_clients_order(
    models: dict[str, Pod],
) -> None:
    tally = Tally(workload.shuffled(tuple(models), REQUESTS, CLIENTS, seed=7))
    ports = {name: pod._port() for name, pod in models.items()}
    clients = [
        threading.Thread(target=_ask_all, args=(number, tally, ports)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join(240.0)
    assert tally.faults() == []
    assert len(tally.answers) == REQUESTS


def _ask_all(number: int, tally: Tally, ports: dict[str, str]) -> None:
    mine = [request for request in tally.requests if request.client == number]
    with urllib3.PoolManager(retries=False, timeout=120.0) as lines:
        for position, request in enumerate(mine):
            try:
                tally.answered(_asked(lines, request, ports[request.model], position))
            except (urllib3.exceptions.HTTPError, ValueError, KeyError) as error:
                tally.failed(f"{request.tag}: {error!r}")


def _asked(lines: urllib3.PoolManager, request: Request, port: str, position: int) -> Answer:
    began = time.monotonic()
    body = {"model": request.model, "prompt": request.tag, "max_tokens": 1}
    url = f"http://127.0.0.1:{port}/v1/completions"
    answer = lines.request("POST", url, body=json.dumps(body))
    said = json.loads(answer.data)
    return Answer(
        request=request,
        status=answer.status,
        model=said["model"],
        text=said["choices"][0]["text"],
        seconds=time.monotonic() - began,
        position=position,
    )
