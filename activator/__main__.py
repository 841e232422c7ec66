"""`python -m activator`: reads settings, starts the parts, waits for the end."""

import asyncio
import gc
import signal
import sys

from activator.agents import in_cluster
from activator.process import Process
from activator.settings import Settings
from kybernate.clients.kube import Kube
from kybernate.runtime import logs, settings
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.connecting import connect

# Seconds that the loop waits at most for a thread that computes (a watch, a report to an agent);
# Python's usual 5 ms would be most of what a request may be held up.
_HAND_OVER_S = 0.0005


def main() -> None:
    """Run until told to stop."""
    sys.setswitchinterval(_HAND_OVER_S)
    configured = settings.from_process(Settings)
    logs.configure("activator", configured.log_level)
    kube = connect(configured.kubeconfig)
    asyncio.run(_run(configured, kube))


async def _run(configured: Settings, kube: Kube) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    process = Process(configured, kube, SystemClock(), in_cluster(configured.client_tls_dir))
    await process.start()
    gc.freeze()  # what is loaded by now is not looked through while requests wait
    await stopping.wait()
    await process.stop()


if __name__ == "__main__":
    main()
