"""
`python -m testbed.assets.pin`: pin what this machine's mirror has now, for its architecture.

Called by: people, when the mirror no longer has what `packages.json` names.
Rule: the change is for review: versions and hashes are what the archive signed, and nothing is
unpacked or run.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

from testbed.assets import apt, debian
from testbed.assets.catalog import PACKAGED
from testbed.assets.debian import Packaged


def main() -> int:
    """Returns the exit code."""
    pins = json.loads(debian.PINS.read_text()) if debian.PINS.exists() else {}
    try:
        pins[apt.architecture()] = _of_suites()
    except apt.PackagesUnavailable as problem:
        print(f"testbed: {problem}", file=sys.stderr)
        return 1
    debian.PINS.write_text(json.dumps(pins, indent=1) + "\n")
    return 0


def _of_suites() -> dict[str, list[list[str]]]:
    found = {}
    for suite in sorted({asset.suite for asset in PACKAGED}):
        with tempfile.TemporaryDirectory() as folder:
            source = apt.Apt(Path(folder), suite)
            source.update()
            for asset in PACKAGED:
                if asset.suite == suite:
                    found[asset.name] = _exactly(_names(asset, source), source)
    return found


def _names(asset: Packaged, source: apt.Apt) -> list[str]:
    if asset.alone:
        return [asset.root, *asset.also]
    plan = source.ask("apt-get", "install", "--simulate", "--no-install-recommends", asset.root)
    return re.findall(r"^Inst (\S+)", plan, re.MULTILINE)


def _exactly(names: list[str], source: apt.Apt) -> list[list[str]]:
    shown = source.ask("apt-cache", "show", "--no-all-versions", *names)
    paragraphs = [_fields(paragraph) for paragraph in shown.strip().split("\n\n")]
    return [[one["Package"], one["Version"], one["SHA256"]] for one in paragraphs]


def _fields(paragraph: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+): (\S+)$", paragraph, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
