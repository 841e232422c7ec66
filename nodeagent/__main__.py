"""`python -m nodeagent`: serve until SIGTERM."""

import sys

from kybernate.api.errors import Malformed
from kybernate.runtime import logs, settings
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.stopping import stop_event
from nodeagent.process import Process
from nodeagent.settings import Settings
from nodeagent.sources import await_cards


def main() -> int:
    """The exit status: 0 when stopped, 2 for a profile file or setting that cannot be used."""
    ours = settings.from_process(Settings)
    logs.configure("nodeagent", ours.log_level)
    stop = stop_event()
    try:
        cards = await_cards(ours, stop)
        if cards is None:
            return 0
        process = Process(ours, cards, SystemClock())
        process.start()
    except (Malformed, OSError) as problem:
        sys.stderr.write(f"nodeagent: {problem}\n")
        return 2
    stop.wait()
    process.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
