"""`python -m webhook`: reads settings, builds the parts, serves."""

from dataclasses import dataclass
from pathlib import Path

from kybernate.clients.kube import Kube
from kybernate.clients.opa import OpaPolicy
from kybernate.runtime import logs, serving, settings
from kybernate.runtime.connecting import connect
from kybernate.runtime.health import Health
from kybernate.runtime.metrics import Metrics
from kybernate.runtime.settings import ProcessSettings, setting
from kybernate.runtime.tls import TlsFiles
from kybernate.runtime.wsgi import Running, Serving, WsgiServer
from webhook.admission import Admission
from webhook.app import Parts, make_app
from webhook.defaulting import DEFAULT_SCHEDULER
from webhook.view import ClusterView

THREADS = 16  # an answer waits for OPA about a millisecond, at most its half second of patience


@dataclass(frozen=True, kw_only=True)
class Settings(ProcessSettings):
    """Completes seat pods and judges them, as the API server asks."""

    listen: str = setting(":8443", unit="address", help="where the API server calls us, over TLS")
    tls_dir: Path = setting(help="folder with tls.crt, tls.key and ca.crt; read again on change")
    opa_url: str = setting("http://127.0.0.1:8181", help="the OPA beside us")
    scheduler: str = setting(
        "",
        help="schedulerName given to seat pods that name none; empty where the extender serves "
        "the default scheduler",
    )
    accept_schedulers: tuple[str, ...] = setting(
        (),
        help="schedulers a seat pod may name besides; whoever is listed must ask our extender",
    )

    @property
    def accepted(self) -> frozenset[str]:
        """Every `schedulerName` a seat pod may have in the end."""
        return frozenset({self.scheduler or DEFAULT_SCHEDULER, *self.accept_schedulers})


def build(configured: Settings) -> Running:
    """Everything a worker needs, started. Raises BadKubeconfig, OSError."""
    kube, measured, health = Kube.connect(configured.kubeconfig), Metrics(), Health()
    view, policy = ClusterView(kube), OpaPolicy(configured.opa_url)
    health.ready("watches", lambda: view.unready)
    measured.observed(
        "webhook_watch_broken_seconds",
        "How long the watch that is broken longest has been so",
        lambda: view.broken_seconds,
    )
    admission = Admission(
        policy=policy,
        view=view,
        scheduler=configured.scheduler,
        schedulers=configured.accepted,
    )
    telemetry = serving.telemetry(configured.metrics_listen, health, measured)
    telemetry.start()
    view.start()

    def stop() -> None:
        view.stop()
        telemetry.stop()
        policy.close()
        kube.close()

    return Running(make_app(Parts(admission, health, measured)), stop)


def main() -> None:
    """Serve until told to stop."""
    configured = settings.from_process(Settings)
    logs.configure("webhook", configured.log_level)
    connect(configured.kubeconfig).close()  # or say here why not, before gunicorn's words
    told = Serving(
        name="kyb-webhook",
        listen=configured.listen,
        threads=THREADS,
        tls=TlsFiles(configured.tls_dir),
    )
    WsgiServer(told, lambda: build(configured)).run()


if __name__ == "__main__":
    main()
