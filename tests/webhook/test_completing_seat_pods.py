"""What a seat pod is given that it does not say itself."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api import names
from webhook import defaulting, wire
from webhook.defaulting import Terms

SEAT = "kyb.ai/gpu-1x-seat"
Make = Callable[..., Any]


def test_a_plain_seat_pod_gets_the_runtime_class_and_nccls_setting_alone(a_pod: Make) -> None:
    additions = defaulting.complete(a_pod(), Terms())
    assert wire.patch_of(additions) == [
        {"op": "add", "path": "/spec/runtimeClassName", "value": "kybernate"},
        {
            "op": "add",
            "path": "/spec/containers/0/env",
            "value": [{"name": "NCCL_GRAPH_REGISTER", "value": "0"}],
        },
    ]


def test_a_pod_without_a_seat_gets_nothing(a_pod: Make, a_container: Make) -> None:
    pod = a_pod(a_container(limits={"nvidia.com/gpu": "1"}))
    terms = Terms(defaults={names.CLASS: "batch"}, candidates=("c",), scheduler="kybernate")
    assert defaulting.complete(pod, terms) == ()


@pytest.mark.parametrize(
    ("present", "configured", "expected"),
    [
        pytest.param("default-scheduler", "kybernate", "kybernate", id="the-default-is-replaced"),
        pytest.param("", "kybernate", "kybernate", id="none-is-filled"),
        pytest.param("volcano", "kybernate", "volcano", id="a-chosen-one-is-left"),
        pytest.param("default-scheduler", "", "default-scheduler", id="no-scheduler-of-ours"),
    ],
)
def test_the_scheduler_is_set_only_where_nobody_chose_one(
    a_pod: Make, patched: Make, present: str, configured: str, expected: str
) -> None:
    pod = a_pod(schedulerName=present)
    result = patched(pod, defaulting.complete(pod, Terms(scheduler=configured)))
    assert result["spec"]["schedulerName"] == expected


def test_a_seat_given_only_in_requests_is_copied_into_limits(
    a_pod: Make, a_container: Make, patched: Make
) -> None:
    pod = a_pod(a_container("side"), a_container("main", requests={SEAT: "1", "cpu": "2"}))
    result = patched(pod, defaulting.complete(pod, Terms()))
    assert result["spec"]["containers"][1]["resources"]["limits"] == {SEAT: "1"}
    assert result["spec"]["containers"][0]["resources"] == {}


def test_limits_that_are_there_are_kept_when_a_seat_is_added(
    a_pod: Make, a_container: Make, patched: Make
) -> None:
    pod = a_pod(a_container(limits={"cpu": "2"}, requests={SEAT: "1"}))
    result = patched(pod, defaulting.complete(pod, Terms()))
    assert result["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "2", SEAT: "1"}


def test_annotations_of_the_pod_win_over_defaults_of_policy(a_pod: Make, patched: Make) -> None:
    pod = a_pod(annotations={names.CLASS: "training"})
    terms = Terms(defaults={names.CLASS: "batch", names.MIN_RUNTIME: "5m"})
    result = patched(pod, defaulting.complete(pod, terms))
    assert result["metadata"]["annotations"] == {names.CLASS: "training", names.MIN_RUNTIME: "5m"}


def test_a_plainly_named_group_is_not_joined_by_a_default(a_pod: Make, patched: Make) -> None:
    pod = a_pod(annotations={"prefer-group": "G0"})
    terms = Terms(defaults={names.PREFER_GROUP: "G1"})
    result = patched(pod, defaulting.complete(pod, terms))
    assert result["metadata"]["annotations"] == {"prefer-group": "G0"}


def test_own_checkpoints_come_before_the_gold_image_that_policy_names(
    a_pod: Make, patched: Make
) -> None:
    pod = a_pod()
    terms = Terms(defaults={names.RESTORE_FROM: "gold, new"}, candidates=("new", "old"))
    result = patched(pod, defaulting.complete(pod, terms))
    assert result["metadata"]["annotations"][names.RESTORE_FROM] == "new,old,gold"


def test_a_named_checkpoint_is_left_alone(a_pod: Make, patched: Make) -> None:
    pod = a_pod(annotations={names.RESTORE_FROM: "gold"})
    result = patched(pod, defaulting.complete(pod, Terms(candidates=("own",))))
    assert result["metadata"]["annotations"] == {names.RESTORE_FROM: "gold"}


def test_the_author_is_warned_where_vram_is_not_said(a_pod: Make) -> None:
    assert defaulting.warnings(a_pod(), Terms()) == (defaulting.VRAM_WARNING,)
    assert defaulting.warnings(a_pod(annotations={names.VRAM: "40Gi"}), Terms()) == ()
    assert defaulting.warnings(a_pod(), Terms(defaults={names.VRAM: "40Gi"})) == ()


def test_a_default_that_pods_may_not_have_is_left_out_and_said() -> None:
    good, left_out = defaulting.usable(
        {names.CLASS: "batch", names.SEAT: "G0/0", names.VRAM: "much", "other": "x"}
    )
    assert good == {names.CLASS: "batch"}
    assert len(left_out) == 3
    assert "much" in " ".join(left_out)


_QUANTITIES = st.dictionaries(
    st.sampled_from([SEAT, "kyb.ai/gpu-2x-seat", "cpu", "a~/b"]), st.sampled_from(["1", "2", "0"])
)
_CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.just("c")},
        optional={
            "resources": st.none()
            | st.fixed_dictionaries(
                {}, optional={"limits": st.none() | _QUANTITIES, "requests": _QUANTITIES}
            )
        },
    ),
    max_size=3,
)
_ANNOTATIONS = st.dictionaries(
    st.sampled_from([*sorted(names.INPUT_ANNOTATIONS), "prefer-group", "a/~b"]),
    st.sampled_from(["x", "40Gi", ""]),
)
_PODS = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {"containers": _CONTAINERS},
            optional={
                "initContainers": st.none() | _CONTAINERS,
                "schedulerName": st.sampled_from(["", "default-scheduler", "other"]),
                "runtimeClassName": st.none() | st.sampled_from(["", "kybernate", "runc"]),
            },
        )
    },
    optional={
        "metadata": st.fixed_dictionaries(
            {}, optional={"annotations": st.none() | _ANNOTATIONS, "name": st.just("p")}
        )
    },
)
_TERMS = st.builds(
    Terms,
    defaults=_ANNOTATIONS,
    candidates=st.lists(st.sampled_from(["c1", "c2"]), unique=True).map(tuple),
    scheduler=st.sampled_from(["", "default-scheduler", "kybernate"]),
)


@given(pod=_PODS, terms=_TERMS)
def test_completing_twice_is_completing_once(
    patched: Make, pod: dict[str, Any], terms: Terms
) -> None:
    before = orjson.dumps(pod)
    additions = defaulting.complete(pod, terms)
    assert orjson.dumps(pod) == before, "the pod itself is never changed"
    assert additions == defaulting.complete(pod, terms)
    assert defaulting.complete(patched(pod, additions), terms) == ()
