"""`python -m activator`: reads settings, starts the parts, waits for the end."""

import asyncio
import gc
import signal

from activator.agents import in_cluster
from activator.process import Process
from activator.settings import Settings
from kybernate.clients.kube import Kube
from kybernate.runtime import handing, logs, settings
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.connecting import connect


def main() -> None:
    """Run until told to stop."""
    handing.over_soon()
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
