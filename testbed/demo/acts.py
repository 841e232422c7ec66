"""The scenario, one function an act. Each says what happens as it happens, and checks it.

Called by `__main__`, in order. An act that does not go as told raises Unexpected.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from kybernate.clients.agents import Outcome
from kybernate.model.ids import WorkloadKey
from kybernate.model.workload import State
from testbed.demo import objects
from testbed.demo.asking import PATIENCE_S, Answer
from testbed.demo.stage import NODE, Stage, Unexpected

MODELS = ("llama-a", "llama-b", "llama-c", "llama-d", "llama-e")
VRAM = "40Gi"
TRAINER = "trainer"
STEPS = 300
COUNTED = "2Gi"
SAVED = "counter-saved"
LOADED = (State.ACTIVE, State.PARKED)
NOTICEABLE_S = 0.01
_STEP = re.compile(r"step (\d+)/")


def impatience(stage: Stage) -> None:
    """Shorter times than shipped, so that a viewer sees turns within two minutes."""
    stage.screen.act("Policies for an impatient viewer")
    revision = stage.change_classes(
        inference={"min_runtime_seconds": 1, "idle_after_seconds": 1, "slice_seconds": 10},
        training={"min_runtime_seconds": 5, "slice_seconds": 20},
    )
    stage.screen.tell(f"shorter minimum runtimes and slices are in force: {revision}")


def arrival(stage: Stage) -> None:
    """Five models of 40 GiB want one 80 GB GPU; its profile lets one at a time be active."""
    stage.screen.act("Five models of 40 GiB share one 80 GB GPU; one at a time may be active")
    stage.apply(*objects.priority_classes(), *(objects.model(name, VRAM) for name in MODELS))
    loaded: set[str] = set()

    def all_loaded() -> bool:
        for name in sorted(set(MODELS) - loaded):
            found = stage.workload(name)
            if found and found.state in {State.ACTIVE, State.PARKED}:
                loaded.add(name)
                stage.screen.tell(f"{name} has seat {found.seat} and loaded its weights")
        return len(loaded) == len(MODELS)

    stage.until(all_loaded, "every model loaded once")
    stage.screen.tell("all five have loaded; four are parked in RAM, their pods run on")


def asked(stage: Stage) -> None:
    """Parked models are asked; each comes back with its counter."""
    stage.screen.act("Parked models are asked")
    for name in ("llama-a", "llama-c", "llama-a"):
        was = stage.state(name)
        tell(stage, stage.client.ask(name), f"was {was}")


def burst(stage: Stage) -> None:
    """A training job fills the idle GPU; a burst of requests parks it; it returns by itself."""
    stage.screen.act("A training job, and a burst of requests with higher priority")
    stage.apply(objects.trainer(TRAINER, VRAM, STEPS))
    stage.until(lambda: _step(stage) > 0, "the trainer's first steps")
    stage.screen.tell(f"{TRAINER} trains on the idle GPU: step {_step(stage)} of {STEPS}")
    with ThreadPoolExecutor(4) as pool:
        order = ("llama-b", "llama-d", "llama-b", "llama-b")
        for answer in pool.map(stage.client.ask, order):
            tell(stage, answer, "burst")
    step = _step(stage)
    stage.screen.tell(f"{TRAINER} is {stage.state(TRAINER)} at step {step}")
    stage.until(lambda: _step(stage) > step, "the trainer's return")
    stage.screen.tell(f"nobody asks any more: {TRAINER} is back and goes on, step {_step(stage)}")


def live_edit(stage: Stage) -> None:
    """The same request, refused under one policy and served under the next."""
    stage.screen.act("A policy is edited while everything runs")
    stage.until(lambda: stage.state(TRAINER) is State.ACTIVE, "the trainer active")
    revision = stage.change_classes(training={"min_runtime_seconds": 600, "slice_seconds": 600})
    stage.screen.tell(f"training now keeps its GPU for ten minutes: {revision}")
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(stage.client.ask, "llama-e")
        stage.until(lambda: "MinRuntime" in _why(stage, "llama-e"), "a refusal with its reason")
        stage.screen.tell(f"llama-e is asked and waits: {_why(stage, 'llama-e')}")
        revision = stage.change_classes(training={"min_runtime_seconds": 5, "slice_seconds": 20})
        stage.screen.tell(f"edited back: {revision}")
        answer = request.result()
    tell(stage, answer, "the same request")
    if not any(phase.name == "copy out" for phase in answer.outcome.phases):
        raise Unexpected(f"{answer.model} was served, but not by parking {TRAINER}")


def refusals(stage: Stage) -> None:
    """What cannot be placed says why."""
    stage.screen.act("What cannot run says why")
    stage.apply(
        objects.lone_pod("too-large", "200Gi"),
        objects.lone_pod("two-gpus", "40Gi", seat="kyb.ai/gpu-2x-seat"),
    )
    # VRAM is ours to judge; seats are counted by the scheduler, which never asks us then.
    for name, reason in (("too-large", "PlacementRefused"), ("two-gpus", "FailedScheduling")):
        said = partial(stage.events, name, (reason,))
        stage.until(lambda said=said: bool(said()), f"a reason for {name}")  # type: ignore[misc]
        stage.screen.tell(f"{name}: {said()[-1]}")


def proof(stage: Stage) -> None:
    """Every model counts exactly what it was asked, and the trainer ends whole."""
    stage.screen.act("Are all contents whole?")
    for name in MODELS:
        stage.client.ask(name)
    counted = {answer.model: answer.counter for answer in stage.client.answers}
    for name in MODELS:
        asked_times = stage.client.asked[name]
        stage.screen.tell(f"{name}: asked {asked_times} times, counts {counted[name]}")
        if counted[name] != asked_times:
            raise Unexpected(f"{name} was asked {asked_times} times and counts {counted[name]}")
    broken = [answer.model for answer in stage.client.answers if not answer.intact]
    if broken:
        raise Unexpected(f"contents were damaged: {', '.join(broken)}")
    stage.until(lambda: "memory intact" in _log(stage), "the trainer's end")
    stage.screen.tell(f"{TRAINER}: {_log(stage).strip().splitlines()[-1]}")
    stage.client.ask(MODELS[0])
    stage.until(lambda: _shown_active(stage, MODELS[0]), "what kubectl shows")


def waking(stage: Stage) -> None:
    """On a real node: a container is sealed, deleted, and goes on in a new pod."""
    if not stage.stack.real:
        return
    stage.screen.act("A counter is parked and sealed; its pod is deleted; a new pod goes on")
    stage.apply(objects.counter("counter", COUNTED))
    stage.until(lambda: stage.state_of("counter") in LOADED, "the counter's start")
    for _ in range(3):
        answer = stage.client.ask("counter")
    stage.screen.tell(f"counter holds {COUNTED} and counts {answer.counter}")
    key = WorkloadKey("default", "counter")
    parked = stage.agent.park(key, within=PATIENCE_S)
    made = stage.agent.checkpoint(key, name=SAVED, leave_parked=True, within=PATIENCE_S)
    for what, outcome in (("parked", parked), ("sealed", made)):
        if not outcome.ok:
            raise Unexpected(f"counter was not {what}: {outcome.reason} {outcome.message}")
        stage.screen.tell(f"{what}: {split(outcome)}")
    stage.stack.plane.kubectl("delete", "pod", "counter", "--wait=true")
    stage.screen.tell("its pod is deleted")
    _wake(stage, answer)


def _wake(stage: Stage, before: Answer) -> None:
    started = time.monotonic()
    stage.apply(objects.counter("counter-again", COUNTED, restore_from=SAVED))
    stage.until(lambda: stage.state_of("counter-again") in LOADED, "the waking")
    answer = stage.client.ask("counter-again")
    seconds = time.monotonic() - started
    if answer.counter != before.counter + 1 or not answer.intact:
        raise Unexpected(f"counter-again counts {answer.counter}, intact: {answer.intact}")
    stage.screen.tell(
        f"counter-again, a new pod, answered {seconds:.2f} s after it was created: "
        f"counter {answer.counter}, contents intact"
    )
    woken = partial(stage.events, "counter-again", ("Woken",))
    stage.until(lambda: bool(woken()), "the event of the waking")
    stage.screen.tell(f"    {woken()[-1]}")
    stage.stack.plane.kubectl("delete", "pod", "counter-again", "--wait=true")


# Refusals last: the trainer has ended, so a seat is free and what is missing is VRAM.
ACTS = (impatience, arrival, asked, burst, live_edit, proof, waking, refusals)


def tell(stage: Stage, answer: Answer, how: str) -> None:
    """One answered request, and below it where the switch's time went."""
    whole = "intact" if answer.intact else "DAMAGED"
    stage.screen.tell(
        f"{answer.model} ({how}) answered after {answer.seconds:.2f} s: counter {answer.counter}, "
        f"contents {whole}"
    )
    stage.screen.tell(f"    {split(answer.outcome)}")


def split(outcome: Outcome) -> str:
    """The phases that took a noticeable time, park and resume together, and the switch's sum."""
    spent: dict[str, float] = {}
    for phase in outcome.phases:
        spent[phase.name] = spent.get(phase.name, 0.0) + phase.seconds
    parts = [f"{name} {seconds:.2f}" for name, seconds in spent.items() if seconds >= NOTICEABLE_S]
    return f"{outcome.seconds:.2f} s = {' + '.join(parts)}" if parts else "it was active"


def _why(stage: Stage, app: str) -> str:
    found = stage.workload(app)
    return found.why if found else ""


def _shown_active(stage: Stage, app: str) -> bool:
    """Whether its GpuWorkload says what the agent knows: status is written a moment later."""
    shown = stage.get("gpuworkloads")["items"]
    mine = [one for one in shown if one["metadata"]["name"].startswith(f"{app}-")]
    return any(one.get("status", {}).get("state") == State.ACTIVE for one in mine)


def _log(stage: Stage) -> str:
    """The trainer's output."""
    if stage.stack.real:
        return stage.stack.plane.kubectl("logs", f"job/{TRAINER}", "--tail=-1", check=False)
    # `kubectl logs` needs a kubelet's API, which a light node has not.
    logs = (stage.stack.nodes[NODE].folder.work / "logs").glob(f"default_{TRAINER}-*.log")
    return "".join(path.read_text() for path in logs)


def _step(stage: Stage) -> int:
    steps = _STEP.findall(_log(stage))
    return int(steps[-1]) if steps else 0
