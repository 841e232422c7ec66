"""
Kubeconfigs: who somebody is to an API server, as a file.

Called by: `testbed.controlplane`.
Rule: the authority and client certificates are inside; tokens stay in a file of their own, so that
a newer token is taken without a restart.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from testbed import files
from testbed.pki import Pair


def certificate_user(pair: Pair) -> dict[str, Any]:
    """The `user` of a kubeconfig that shows this client certificate."""
    return {
        "client-certificate-data": _base64(pair.certificate),
        "client-key-data": _base64(pair.key),
    }


def token_user(token: Path) -> dict[str, Any]:
    """The `user` of a kubeconfig that reads its bearer token from this file."""
    return {"tokenFile": str(token.absolute())}


def write(file: Path, server: str, authority: Path, user: Mapping[str, Any]) -> Path:
    """A kubeconfig with one context. JSON, which is YAML too. Returns `file`."""
    cluster = {"server": server, "certificate-authority-data": _base64(authority)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": "testbed", "user": dict(user)}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed"}}],
        "current-context": "testbed",
    }
    files.write_private(file, orjson.dumps(config, option=orjson.OPT_INDENT_2))
    return file


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
