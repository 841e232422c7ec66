"""The extender's settings; how they are given is in `kybernate/runtime/settings.py`."""

from dataclasses import dataclass
from pathlib import Path

from kybernate.runtime.settings import ProcessSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """The kube-scheduler extender: filter, prioritize and preempt for pods with seats."""

    listen: str = setting(
        ":8443",
        unit="address",
        help="where the scheduler reaches us; HTTPS when --tls-dir is given",
    )
    opa_url: str = setting(
        "http://127.0.0.1:8181", help="the OPA beside us; empty: placement without policy"
    )
    candidates: int = setting(
        32,
        help="nodes that filter answers with; 0 means all. The scheduler scores these only, and "
        "scoring thousands is what costs it time",
    )
    cold_start: float = setting(
        60.0,
        unit="seconds",
        help="estimate of a start that has no checkpoint to resume from, loading a model included",
    )
    threads: int = setting(
        8, help="requests answered at once; the scheduler sends one, several schedulers more"
    )
    require_client_certificate: bool = setting(
        False, help="answer only clients with a certificate of ca.crt"
    )
    replay: Path | None = setting(
        None, help="print the decisions of this dump of /debug/view (- is standard input) and end"
    )
