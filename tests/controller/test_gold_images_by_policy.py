"""A CheckpointPolicy's `gold`: of each image and command that runs a gold image is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controller.gilding import AGAIN, SETTLED, Gilding
from kybernate.api import goldimages, names, timestamps
from kybernate.clients.resources import CHECKPOINTREQUESTS, GPUCHECKPOINTS
from kybernate.testing.clock import START, FakeClock
from kybernate.testing.fakekube import FakeKube

Wait = Callable[..., Any]
RUN = (("one", "model:1"), ("three", "model:2"))


def policy(gold: str = "llama", app: str = "llama") -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": "CheckpointPolicy",
        "metadata": {"name": f"{gold}-{app}", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}, "gold": gold},
    }


def pod(name: str, image: str = "model:1", *, ready: bool = True, **more: Any) -> dict[str, Any]:
    condition = {
        "type": "Ready", "status": str(ready), "lastTransitionTime": timestamps.rfc3339(START),
    }  # fmt: skip
    container = {
        "name": "model", "image": image, "args": ["--port=8000"],
        "resources": {"limits": {"kyb.ai/gpu-1x-seat": "1"}}, **more,
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "llama"}},
        "spec": {"containers": [{"name": "side", "image": "proxy"}, container]},
        "status": {"phase": "Running", "conditions": [condition]},
    }


def name_of(image: str) -> str:
    seated = goldimages.seated(pod("any", image))
    assert seated is not None
    return f"llama-{seated.version}"


@contextmanager
def watched(kube: FakeKube, clock: FakeClock) -> Iterator[Gilding]:
    part = Gilding(kube, clock)
    for watch in part.watches:
        watch.start()
    assert all(watch.wait_synced(10) for watch in part.watches)
    yield part
    for watch in part.watches:
        watch.stop()


def asked(kube: FakeKube) -> list[tuple[str, str]]:
    made = kube.list(CHECKPOINTREQUESTS)
    assert all(one["spec"]["gold"] and one["spec"]["leave"] == "Running" for one in made)
    return [(one["spec"]["workload"], one["spec"]["name"]) for one in made]


def test_the_first_that_is_ready_is_sealed_and_of_each_version_one_is(eventually: Wait) -> None:
    kube, clock = FakeKube(policy(), pod("one"), pod("two")), FakeClock()
    with watched(kube, clock) as part:
        assert part.look(("default", "one")) == SETTLED
        clock.advance(SETTLED)
        assert part.look(("default", "one")) == AGAIN
        assert part.look(("default", "two")) == AGAIN  # it is asked for already
        assert asked(kube) == [("one", name_of("model:1"))]
        kube.seed({"kind": "GpuCheckpoint", "metadata": {"name": name_of("model:1")}})
        eventually(lambda: part.look(("default", "one")) is None)
        kube.seed(pod("three", "model:2"))
        eventually(lambda: part.look(("default", "three")) == AGAIN)
        assert set(asked(kube)) == {(one, name_of(image)) for one, image in RUN}


@pytest.mark.parametrize(
    "there",
    [
        pytest.param([policy(), pod("one", ready=False)], id="it-is-not-ready"),
        pytest.param([policy(app="other"), pod("one")], id="no-policy-selects-it"),
        pytest.param([pod("one")], id="no-policy"),
        pytest.param([policy(), pod("one", resources={})], id="it-has-no-seat"),
    ],
)
def test_nothing_is_asked_for_where(there: list[dict[str, Any]]) -> None:
    kube, clock = FakeKube(*there), FakeClock(START + 3600)
    with watched(kube, clock) as part:
        assert part.look(("default", "one")) is None
    assert asked(kube) == []


def test_where_it_could_not_be_sealed_it_waits_until_that_request_is_forgotten() -> None:
    kube, clock = FakeKube(policy(), pod("one")), FakeClock(START + 3600)
    with watched(kube, clock) as part:
        part.look(("default", "one"))
        part.look(("default", "one"))
        assert len(asked(kube)) == 1
        kube.delete(CHECKPOINTREQUESTS, f"gold-{name_of('model:1')}", "default")
        assert part.look(("default", "one")) == AGAIN
    assert len(asked(kube)) == 1
    assert kube.list(GPUCHECKPOINTS) == []


def test_image_command_and_arguments_make_a_version_and_nothing_else() -> None:
    def version(**more: Any) -> str:
        found = goldimages.seated(pod("any", **more))
        assert found is not None
        return found.version

    same = {version(), version(env=[{"name": "A"}]), version(ready=False)}
    others = {version(image="b"), version(args=["-x"]), version(command=["sh"])}
    assert (len(same), len(others | same)) == (1, 4)
    assert goldimages.is_of("llama", f"llama-{version()}")
    for other in ("llama", "llama-by-hand", f"llama-2-{version()}", f"other-{version()}"):
        assert not goldimages.is_of("llama", other)
