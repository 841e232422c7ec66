"""`python -m deviceplugin`: serve until told to stop. Exit 2 when a file cannot be used."""

import sys

from deviceplugin.process import Process
from deviceplugin.settings import Settings
from kybernate.api.errors import Malformed
from kybernate.runtime import logs, settings, stopping
from kybernate.runtime.clock import SystemClock


def main() -> int:
    """The exit status: 0 stopped as asked, 2 for settings or a profile file with faults."""
    configured = settings.from_process(Settings)
    logs.configure("deviceplugin", configured.log_level)
    try:
        Process(configured, SystemClock()).run(stopping.stop_event())
    except Malformed as problem:
        lines = [f"  {fault}" for fault in problem.faults]
        sys.stderr.write("\n".join([f"{configured.profiles} cannot be used:", *lines, ""]))
        return 2
    except OSError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
