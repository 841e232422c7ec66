"""Every process is started with settings that it knows, as its own reader judges them."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from kybernate.runtime import settings
from kybernate.runtime.settings import ProcessSettings

pytestmark = pytest.mark.controlplane

Object = dict[str, Any]

WHERE = {
    "controller": "controller.settings",
    "extender": "extender.settings",
    "webhook": "webhook.__main__",
    "activator": "activator.settings",
    "nodeagent": "nodeagent.settings",
    "deviceplugin": "deviceplugin.settings",
    "registry": "registry.settings",
}
# What the kubelet puts in.
KNOWN_THERE = {
    "fieldRef": "node-a",
    "resourceFieldRef": "68719476736",
    "secretKeyRef": "postgresql://kyb@db/kyb",
}


@pytest.mark.parametrize("process", WHERE)
@pytest.mark.parametrize("path", ["default", "overlays/scheduler"])
def test_a_process_accepts_the_settings_it_is_started_with(
    built: Callable[[str], list[Object]], path: str, process: str
) -> None:
    read = _read(process, _container(built(path), process))
    assert read.metrics_listen == ":9090"


def test_the_webhook_sends_seat_pods_to_the_second_scheduler_where_there_is_one(
    built: Callable[[str], list[Object]],
) -> None:
    alone = _read("webhook", _container(built("default"), "webhook"))
    beside = _read("webhook", _container(built("overlays/scheduler"), "webhook"))
    assert (alone.scheduler, beside.scheduler) == ("", "kybernate")


def test_on_postgresql_several_replicas_keep_nothing_themselves(
    built: Callable[[str], list[Object]],
) -> None:
    objects = built("overlays/registry-postgresql")
    container = _container(objects, "registry")
    read = _read("registry", container)
    assert read.url.get_backend_name() == "postgresql"
    assert {one["name"] for one in container["volumeMounts"]} == {"tls", "tmp"}
    (deployment,) = [
        one
        for one in objects
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "kyb-registry"
    ]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["type"] == "RollingUpdate"


def _container(objects: list[Object], name: str) -> Object:
    (found,) = [
        container
        for one in objects
        if one["kind"] in ("Deployment", "DaemonSet")
        for container in one["spec"]["template"]["spec"]["containers"]
        if container["name"] == name
    ]
    return found


def _read(process: str, container: Object) -> Any:
    """As the process itself reads them; every unknown one would be a fault."""
    environment = {one["name"]: _value(one) for one in container.get("env", ())}
    arguments = [
        one.replace("$(NODE_NAME)", environment.get("NODE_NAME", "")) for one in container["args"]
    ]
    kind: type[ProcessSettings] = importlib.import_module(WHERE[process]).Settings
    return settings.load(kind, argv=arguments, environ=environment)


def _value(one: Object) -> str:
    if "value" in one:
        return str(one["value"])
    (source,) = one["valueFrom"]
    return KNOWN_THERE[source]
