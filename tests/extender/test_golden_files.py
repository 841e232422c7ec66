"""
What a real kube-scheduler said, answered again without a cluster.

Recorded by tests/controlplane/test_real_scheduler_places_through_the_extender.py with KYB_RECORD=1;
`scheduler.json` says what the scheduler made of our answers then.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest

from extender import dump, replay, wire
from extender.placing import Options, Placing
from extender.service import Service
from kybernate.testing.clock import FakeClock

GOLDEN = Path(__file__).parent / "golden"
CALLS = sorted(path for path in GOLDEN.glob("*/*.request.json"))


def service(extender: Any, case: Path) -> Service:
    """One that sees what was seen then."""
    seen = dump.read((case / "view.json").read_bytes())
    options = Options(candidates=seen.candidates, cold_start=seen.cold_start)
    view = replay.view_of(seen.cluster)
    placing = Placing(view, extender.judge, FakeClock(seen.now), options)
    return Service(placing, extender.told, extender.metrics, lambda: True)


@pytest.mark.parametrize(
    "request_file", [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in CALLS]
)
def test_the_recorded_call_gets_the_recorded_answer(extender: Any, request_file: Path) -> None:
    verb = request_file.name.partition("-")[0]
    answer = getattr(service(extender, request_file.parent), verb)(request_file.read_bytes())
    expected = request_file.with_name(request_file.name.replace("request", "answer"))
    assert orjson.loads(answer) == orjson.loads(expected.read_bytes())


def test_every_verb_was_recorded() -> None:
    assert {path.name.partition("-")[0] for path in CALLS} == {"filter", "prioritize", "preempt"}


@pytest.mark.parametrize("case", ["estimate", "holder"])
def test_the_scheduler_took_the_node_with_the_best_score(case: str) -> None:
    scores = orjson.loads((GOLDEN / case / "prioritize-0.answer.json").read_bytes())
    best = max(scores, key=lambda entry: entry["Score"])["Host"]
    assert orjson.loads((GOLDEN / case / "scheduler.json").read_bytes())["node"] == best


def test_the_scheduler_repeats_our_reason() -> None:
    said = orjson.loads((GOLDEN / "refused" / "filter-0.answer.json").read_bytes())
    heard = orjson.loads((GOLDEN / "refused" / "scheduler.json").read_bytes())["condition"]
    for reason in said["FailedAndUnresolvableNodes"].values():
        assert reason in heard


@pytest.mark.parametrize(
    "request_file", [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in CALLS]
)
def test_a_body_cut_off_anywhere_is_answered(extender: Any, request_file: Path) -> None:
    """Every prefix is malformed JSON, and none is answered with an exception."""
    body = orjson.dumps(orjson.loads(request_file.read_bytes()))
    ours = service(extender, request_file.parent)
    for end in range(0, len(body), 97):
        assert b"Error" in ours.filter(body[:end])
        assert ours.prioritize(body[:end]) == b"[]"
        assert ours.preempt(body[:end]) == wire.write_victims({})
