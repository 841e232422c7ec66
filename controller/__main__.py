"""`python -m controller`: reads settings, starts the parts, waits for the end."""

from controller.process import Process
from controller.settings import Settings
from kybernate.runtime import logs, settings, stopping
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.connecting import connect


def main() -> None:
    """Run until told to stop."""
    configured = settings.from_process(Settings)
    logs.configure("controller", configured.log_level)
    stop = stopping.stop_event()
    process = Process(configured, connect(configured.kubeconfig), SystemClock())
    process.start()
    stop.wait()
    process.stop()


if __name__ == "__main__":
    main()
