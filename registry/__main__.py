"""`python -m registry`: reads settings, starts the parts, waits for the end."""

import sys

from kybernate.runtime import logs, settings, stopping
from registry.process import Process
from registry.settings import Settings


def main() -> None:
    """Run until told to stop."""
    configured = settings.from_process(Settings)
    logs.configure("registry", configured.log_level)
    stop = stopping.stop_event()
    try:
        process = Process(configured)
        process.start()
    except OSError as problem:
        sys.stderr.write(f"registry: {problem}\n")
        raise SystemExit(1) from None
    stop.wait()
    process.stop()


if __name__ == "__main__":
    main()
