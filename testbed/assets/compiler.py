"""
One `go build`, watched.

Called by: `testbed.assets.cache`, which holds the lock and renames the finished folder.
Rule: writes only into the draft folder it is given; Go's own caches stay where the user has them.
"""

from pathlib import Path

from testbed.assets import patient, toolchain
from testbed.assets.catalog import Asset
from testbed.assets.display import Display


class BuildFailed(Exception):
    """The compiler said no; the message ends with its last lines."""


def build(asset: Asset, go: Path, draft: Path, *, display: Display, lock: int) -> None:
    """Leave `draft/<name>`, executable. Raises BuildFailed. What Go has compiled, it keeps."""
    draft.mkdir(parents=True)
    output = draft / "build.log"
    display.begin(asset.name)
    code = patient.run(
        _command(asset, go, draft / asset.name),
        output,
        display.tick,
        cwd=asset.module,
        env=toolchain.environment(),
        keep=(lock,),
    )
    if code:
        said = patient.tail(output)
        raise BuildFailed(f"building {asset.name} {asset.version} failed ({code}):\n{said}")
    output.unlink()
    display.end(asset.name)


def _command(asset: Asset, go: Path, target: Path) -> list[str]:
    flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", asset.ldflags]
    return [str(go), "build", *flags, "-o", str(target), asset.package]
