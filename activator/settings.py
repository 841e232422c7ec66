"""The activator's settings; how they are given is in `kybernate/runtime/settings.py`."""

import os
from dataclasses import dataclass
from pathlib import Path

from kybernate.api import names
from kybernate.runtime.settings import ProcessSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """One address for many models; requests wait here for a model that sleeps."""

    listen: str = setting(
        ":8080", unit="address", help="where clients reach models; HTTPS when --tls-dir is given"
    )
    view_listen: str = setting(
        "127.0.0.1:8090",
        unit="address",
        help="where people see what goes on: /debug/view, /events and a page; names of all models, "
        "so only from this pod unless told otherwise",
    )
    client_tls_dir: Path = setting(
        help="folder with tls.crt, tls.key and ca.crt that agents know us by; read again on change"
    )
    namespace: str = setting(names.SYSTEM_NAMESPACE, help="where our own record is kept")
    namespaces: tuple[str, ...] = setting(
        (), help="whose models are served; none named: those of all namespaces"
    )
    identity: str = setting(
        os.uname().nodename, help="our name among activators; the pod's, where we run in one"
    )
    owner_uid: str = setting(
        "", unit="uid", help="our pod's: our record goes when the pod does; none: it stays"
    )
    host_suffix: str = setting(
        "", help="`llama.models.example` means the model llama where this is `models.example`"
    )
    model_port: int = setting(
        8000, help="where a model listens whose container names no port; vLLM's own"
    )
    most_held: int = setting(
        256, help="requests held for one model; more are refused with 429 at once"
    )
    most_held_bytes: int = setting(
        256 << 20,
        unit="bytes",
        help="bodies of all requests that are not answered; more are refused with 429",
    )
    hold: float = setting(
        120.0, unit="seconds", help="how long a request waits for its model; then 503, Retry-After"
    )
    most_body: int = setting(
        32 << 20, unit="bytes", help="of one request, kept in memory until it is sent; more is 413"
    )
    read_within: float = setting(
        30.0, unit="seconds", help="how long a client may take for one request; then 408"
    )
    most_connections: int = setting(
        4096, help="clients connected at once; more are closed, so that descriptors last"
    )
