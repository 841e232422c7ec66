"""`python -m nodeagent`: serve until SIGTERM."""

import sys
import threading

from kybernate.api.errors import Malformed
from kybernate.runtime import handing, logs, settings
from kybernate.runtime.clock import SystemClock
from kybernate.runtime.connecting import connect
from kybernate.runtime.stopping import stop_event
from nodeagent.process import Process
from nodeagent.settings import Settings
from nodeagent.sole import sole
from nodeagent.sources import await_cards


def main() -> int:
    """The exit status: 0 when stopped, 2 for a profile file or setting that cannot be used."""
    handing.over_soon()
    ours = settings.from_process(Settings)
    logs.configure("nodeagent", ours.log_level)
    connect(ours.kubeconfig).close()
    stop = stop_event()
    try:
        with sole(ours.state_dir, stop) as alone:
            if alone:
                _serve(ours, stop)
    except (Malformed, OSError) as problem:
        sys.stderr.write(f"nodeagent: {problem}\n")
        return 2
    return 0


def _serve(ours: Settings, stop: threading.Event) -> None:
    cards = await_cards(ours, stop)
    if cards is None:
        return
    process = Process(ours, cards, SystemClock())
    process.start()
    stop.wait()
    process.stop()


if __name__ == "__main__":
    sys.exit(main())
