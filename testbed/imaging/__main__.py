"""`python -m testbed.imaging` (part of `make images`): images are built and tried."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from testbed import assets
from testbed.imaging import BaseFailed, Buildah, BuildahFailed, TrialFailed, trial, why_not

_PROBLEMS = (
    *(assets.BuildFailed, assets.GoUnavailable, assets.MissingAssets, assets.PackagesUnavailable),
    *(BaseFailed, BuildahFailed, TrialFailed),
)
ON_NODES = ("deviceplugin", "nodeagent")
_KNOWN = trial.targets(trial.DOCKERFILE.read_text())


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 when all were built and ran."""
    given = _parser().parse_args(argv)
    problem = why_not()
    if problem:
        print(f"testbed: images cannot be built here: {problem}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="kyb-images-") as folder:
        try:
            table = _tried(Buildah.of(Path(folder)), given.targets, given.keep)
        except _PROBLEMS as problem_met:
            print(f"testbed: {problem_met}", file=sys.stderr)
            return 1
    Console().print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m testbed.imaging", description=__doc__)
    parser.add_argument(
        "targets",
        nargs="*",
        type=_target,
        default=_KNOWN,
        metavar="TARGET",
        help=f"all when none is named; there are: {', '.join(_KNOWN)}",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave archives there of what nodes run"
    )
    return parser


def _target(name: str) -> str:
    if name not in _KNOWN:
        raise argparse.ArgumentTypeError(f"there is no {name!r}; there are: {', '.join(_KNOWN)}")
    return name


def _tried(builder: Buildah, wanted: Sequence[str], keep: Path | None) -> Table:
    """What was built, once all of it was."""
    table = Table("image", "user", "ran", title="built and tried", title_justify="left")
    for one in trial.build(builder, wanted, _say):
        table.add_row(one.target, one.user, "\n".join(one.ran))
        if keep and one.target in ON_NODES:
            _say(f"keeping {one.target}")
            builder.save(trial.name_of(one.target), keep / f"{one.target}.tar")
    return table


def _say(line: str) -> None:
    print(f"== {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
