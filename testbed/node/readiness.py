"""
When the programs of a node are ready.

Called by: `testbed.node.realnode`.
"""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from testbed.api import Api, ApiError

KUBELET_PORT = 10250
_PATIENCE_S = 2.0


def listens(path: Path) -> bool:
    """Whether somebody accepts connections at this unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PATIENCE_S)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def kubelet(api: Api, address: str) -> bool:
    """Whether it calls itself healthy."""
    try:
        return api.text(f"https://{address}:{KUBELET_PORT}/healthz") == "ok"
    except ApiError:
        return False


def knows_its_pods(api: Api, name: str, address: str) -> bool:
    """Whether the kubelet has seen the pods that are bound to its node: before, it has no logs."""
    try:
        bound = api.get(f"/api/v1/pods?fieldSelector=spec.nodeName={name}")
        known = orjson.loads(api.text(f"https://{address}:{KUBELET_PORT}/pods"))
    except ApiError:
        return False
    return _uids(bound) <= _uids(known)


def _uids(pods: Mapping[str, Any]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods.get("items") or ()}


def node(api: Api, name: str, boot_id: str) -> bool:
    """Whether the API server shows it Ready, as it was booted now."""
    try:
        status = api.get(f"/api/v1/nodes/{name}")["status"]
    except ApiError:
        return False
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    return conditions.get("Ready") == "True" and status["nodeInfo"]["bootID"] == boot_id
