"""`python -m extender`: serve, or replay a dump."""

import sys
from functools import partial
from pathlib import Path

from extender import dump, replay
from extender.serving import build, serving
from extender.settings import Settings
from kybernate.api.errors import Malformed
from kybernate.runtime import logs, settings
from kybernate.runtime.connecting import connect
from kybernate.runtime.wsgi import WsgiServer


def main() -> int:
    """The exit status: 0, or 2 for an input that cannot be used."""
    ours = settings.from_process(Settings)
    if ours.replay is not None:
        return _replay(ours.replay)
    logs.configure("extender", ours.log_level)
    connect(ours.kubeconfig).close()  # or say why not here, before gunicorn does
    WsgiServer(serving(ours), partial(build, ours)).run()
    return 0


def _replay(path: Path) -> int:
    try:
        body = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        sys.stdout.write(replay.text(dump.read(body)) + "\n")
    except (OSError, Malformed) as problem:
        sys.stderr.write(f"{path}: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
