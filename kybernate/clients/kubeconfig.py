"""
How an API server is reached and who we are to it: a kubeconfig file, or a pod's service account.

Called by: `kube.py`. Rule: what cannot work (exec plugins, no server) is refused here, in words.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kybernate.clients.errors import Refused

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class BadKubeconfig(Refused):
    """The file cannot be used, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An address and an identity. The token, where there is one, is read from its file again."""

    server: str
    ssl_context: ssl.SSLContext | None = None  # None for http://
    token: str = ""
    token_file: Path | None = None
    namespace: str = "default"


def read(path: Path) -> Access:
    """The current context of a kubeconfig. Raises BadKubeconfig."""
    try:
        config = yaml.safe_load(path.read_bytes())
        context = _named(config, "contexts", "context", config["current-context"])
        cluster = _named(config, "clusters", "cluster", context["cluster"])
        user = _named(config, "users", "user", context["user"]) if context.get("user") else {}
        return _access(cluster, user, context.get("namespace") or "default", path.parent)
    except (OSError, yaml.YAMLError, ssl.SSLError, binascii.Error) as problem:
        raise BadKubeconfig(f"{path}: {problem}") from problem
    except (KeyError, TypeError, AttributeError) as problem:
        raise BadKubeconfig(f"{path}: no usable current context ({problem!r})") from problem


def in_cluster(environ: Mapping[str, str] = os.environ, folder: Path = _SERVICE_ACCOUNT) -> Access:
    """The service account of the pod we run in. Raises BadKubeconfig outside of one."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise BadKubeconfig("not in a cluster (no KUBERNETES_SERVICE_HOST): give --kubeconfig")
    host = f"[{host}]" if ":" in host else host
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        namespace = (folder / "namespace").read_text().strip()
    except (OSError, ssl.SSLError) as problem:
        raise BadKubeconfig(f"{folder}: {problem}") from problem
    return Access(
        server=f"https://{host}:{port}",
        ssl_context=context,
        token_file=folder / "token",
        namespace=namespace,
    )


def _named(config: Any, plural: str, singular: str, name: str) -> Any:
    for entry in config.get(plural) or ():
        if entry["name"] == name:
            return entry[singular]
    raise KeyError(f"{singular} {name!r}")


def _access(cluster: Any, user: Any, namespace: str, folder: Path) -> Access:
    for unsupported in ("exec", "auth-provider", "username"):
        if user.get(unsupported):
            raise BadKubeconfig(
                f"user has {unsupported!r}: use a client certificate, token or tokenFile"
            )
    server = cluster["server"].rstrip("/")
    token_file = user.get("tokenFile")
    return Access(
        server=server,
        ssl_context=_context(cluster, user, folder) if server.startswith("https:") else None,
        token=user.get("token") or "",
        token_file=folder / token_file if token_file else None,
        namespace=namespace,
    )


def _context(cluster: Any, user: Any, folder: Path) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = _content(user, "client-certificate", folder)
    if certificate:
        load_pair(context, certificate, _content(user, "client-key", folder))
    return context


def _content(section: Any, name: str, folder: Path) -> bytes:
    inline = section.get(f"{name}-data")
    if inline:
        return base64.b64decode(inline, validate=True)
    file = section.get(name)
    return (folder / file).read_bytes() if file else b""


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Give the context a certificate and its key. Raises ssl.SSLError where they do not match."""
    # ssl reads pairs from files only; this one exists for the length of the call, for us alone.
    with tempfile.NamedTemporaryFile(suffix=".pem") as both:
        both.write(certificate + b"\n" + key)
        both.flush()
        context.load_cert_chain(both.name)
