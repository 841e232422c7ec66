"""The demo's clients: have a model brought in by its agent, then ask it over HTTP.

Called by the acts. Counts what it asked, so that the end can compare with what models counted.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import urllib3

from kybernate.clients.agents import Agent, AgentRefused, Outcome
from kybernate.model.ids import WorkloadKey
from testbed.demo.objects import PORT

PATIENCE_S = 120.0
LOOK_EVERY_S = 0.1
ASK_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and what it took to get there."""

    model: str
    counter: int
    intact: bool
    seconds: float
    outcome: Outcome


@dataclass
class Client:
    """Asks models. `pod_of` finds a model's pod: its key and address. Thread safe."""

    agent: Agent
    pod_of: Callable[[str], tuple[WorkloadKey, str]]
    monotonic: Callable[[], float]
    asked: Counter[str] = field(default_factory=Counter)
    answers: list[Answer] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, model: str, told: Callable[[str], None] = lambda _: None) -> Answer:
        """Bring it in and ask it once. `told` hears what is going on meanwhile.

        Raises AgentRefused, AgentAway.
        """
        key, address = self.pod_of(model)
        started = self.monotonic()
        outcome = self._bring_in(key, told)
        said = self._answer(key, address, told)
        seconds = self.monotonic() - started
        got = Answer(model, int(said["counter"]), bool(said["intact"]), seconds, outcome)
        with self._lock:
            self.asked[model] += 1
            self.answers.append(got)
        return got

    def _answer(
        self, key: WorkloadKey, address: str, told: Callable[[str], None]
    ) -> dict[str, int]:
        """What it says. Somebody else's turn may come before our question: then it is asked for
        again, while the one question waits at its socket."""
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(_predict, address)
            while True:
                try:
                    return said.result(timeout=ASK_AGAIN_S)
                except TimeoutError:
                    self._bring_in(key, told)

    def _bring_in(self, key: WorkloadKey, told: Callable[[str], None]) -> Outcome:
        outcome = self.agent.activate(key, told=told, within=PATIENCE_S)
        if not outcome.ok:
            raise AgentRefused(f"{key}: {outcome.reason} {outcome.message}")
        return outcome


def _predict(address: str) -> dict[str, int]:
    """Ask as soon as it listens: one that was parked while it started does a moment later."""
    url = f"http://{address}:{PORT}/predict"
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = urllib3.request("POST", url, timeout=PATIENCE_S, retries=False)
            break
        except urllib3.exceptions.NewConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_EVERY_S)
    body: dict[str, int] = json.loads(answer.data)
    if answer.status != 200:
        raise RuntimeError(f"{url} answered {answer.status}: {body}")
    return body
