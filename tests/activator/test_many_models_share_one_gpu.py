"""Thirty models, one active at a time: nothing is lost, nothing is answered by another."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State

MODELS, CLIENTS, EACH = 30, 20, 50  # a thousand requests


def test_a_thousand_requests_to_thirty_models_that_take_turns(
    house: Any, start: Callable[..., Any]
) -> None:
    keys = [house.model(f"m{number}") for number in range(MODELS)]
    turn, active, switches = threading.Lock(), [keys[0]], Counter[str]()

    def bring_in(key: WorkloadKey) -> None:
        """As an agent with one GPU: whoever is in it is parked first."""
        with turn:
            holder = active[0]
            if holder != key:
                house.agent.tell(holder, f"uid-{holder.name}", State.PARKED)
                switches["switches"] += 1
            active[0] = key

    house.agent.bring_in = bring_in
    activators = [start(name) for name in ("one", "two")]

    def client(number: int) -> list[tuple[str, str, int]]:
        """One after the other, to models by chance; by path and by body, as it comes."""
        dice = random.Random(number)
        pool = urllib3.PoolManager(retries=False, timeout=60.0)
        told = []
        for _ in range(EACH):
            name, url = f"m{dice.randrange(MODELS)}", dice.choice(activators).url
            if dice.random() < 0.5:
                answer = pool.request("POST", f"{url}/models/{name}/echo", body=b"{}")
            else:
                answer = pool.request("POST", f"{url}/v1/chat", json={"model": name})
            told.append((name, answer.json().get("model", answer.data), answer.status))
        pool.clear()
        return told

    with ThreadPoolExecutor(CLIENTS) as pool:
        told = [one for answers in pool.map(client, range(CLIENTS)) for one in answers]
    assert len(told) == CLIENTS * EACH
    assert {status for _, _, status in told} == {200}
    assert not [one for one in told if one[0] != one[1]]
    asked = sum(sum(server.asked.values()) for server in house.servers.values())
    assert asked == len(told), "each was asked once"
    assert switches["switches"] > MODELS
