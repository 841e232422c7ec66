"""Our objects into the API server: the shipped manifests, with webhooks at local addresses.

Called by `testbed.stack.stack`. Rule: what is tested here is what is shipped; only the address of
a webhook differs, since no Service reaches a process of this machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from testbed.controlplane import ControlPlane

MANIFESTS = Path(__file__).parents[2] / "manifests"
# In this order: types first, then who may write them.
COMPONENTS = ("namespace", "crd", "rbac", "admission-policies", "runtimeclass", "policies")
WEBHOOKS = "webhook-configurations"

Object = dict[str, Any]


def components(plane: ControlPlane) -> None:
    """Everything that does not run: types, accounts, rules, the RuntimeClass, the policies."""
    for name in COMPONENTS:
        folder = MANIFESTS / "components" / name
        text = plane.kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder))
        _apply(plane, text)
    plane.kubectl(
        "wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=kybernate"
    )


def webhooks(plane: ControlPlane, url: str) -> None:
    """The webhook configurations, calling `url` (https) instead of the Service."""
    text = plane.kubectl("kustomize", str(MANIFESTS / "components" / WEBHOOKS))
    found = [_at(url, one) for one in yaml.safe_load_all(text) if one]
    _apply(plane, yaml.safe_dump_all(found))


def _apply(plane: ControlPlane, text: str) -> None:
    """What is shipped wins: fields that people edited in a kept cluster are taken over."""
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def _at(url: str, configuration: Mapping[str, Any]) -> Object:
    hooks = [_hook_at(url, hook) for hook in configuration["webhooks"]]
    return {**configuration, "webhooks": hooks}


def _hook_at(url: str, hook: Mapping[str, Any]) -> Object:
    service = hook["clientConfig"]["service"]
    return {**hook, "clientConfig": {"url": f"{url}{service['path']}"}}
