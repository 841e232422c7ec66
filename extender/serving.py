"""The extender's server. Called by: `__main__`, the benchmark."""

from extender.process import Process
from extender.settings import Settings
from kybernate.runtime import handing, logs
from kybernate.runtime.tls import TlsFiles
from kybernate.runtime.wsgi import Running, Serving


def serving(settings: Settings) -> Serving:
    """Where and how. Raises OSError where the TLS folder holds no usable pair."""
    return Serving(
        name="kyb-extender",
        listen=settings.listen,
        threads=settings.threads,
        tls=TlsFiles(settings.tls_dir) if settings.tls_dir else None,
        require_client=settings.require_client_certificate,
    )


def build(settings: Settings) -> Running:
    """Everything a worker needs, started."""
    handing.over_soon()
    logs.configure("extender", settings.log_level)
    process = Process(settings)
    process.start()
    return Running(process.flask, process.stop)
