"""
`python -m testbed.assets`: build the binaries, print where they are.

Called by: people and `make`, to have the minutes of building behind them.
Rule: paths go to standard output, one `name path` a line; everything else to standard error.
"""

import argparse
import sys

from testbed import assets

_PROBLEMS = (
    assets.BuildFailed,
    assets.GoUnavailable,
    assets.MissingAssets,
    assets.PackagesUnavailable,
)


def main() -> int:
    """Returns the exit code: 0 when every binary asked for is there."""
    parser = argparse.ArgumentParser(prog="python -m testbed.assets", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=assets.ALL, help="this one (may be given again)"
    )
    parser.add_argument("--node", action="store_true", help="what a real node runs, too")
    given = parser.parse_args()
    names = given.only or assets.USUAL
    if given.node:
        names = tuple(dict.fromkeys((*(given.only or ()), *assets.NODE)))
    try:
        paths = assets.ensure(names)
    except _PROBLEMS as problem:
        print(f"testbed: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testbed: interrupted; the next call goes on from here", file=sys.stderr)
        return 130
    for name, path in paths.items():
        print(name, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
