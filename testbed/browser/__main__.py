"""`python -m testbed.browser URL FILE [--width N] [--dark]`: a screenshot of a page, as PNG."""

import argparse
import sys
from pathlib import Path

from testbed.assets import PackagesUnavailable
from testbed.browser import BrowserFailed, browser


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="testbed.browser", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--until", default="true", help="JavaScript that is true when it is ready")
    given = parser.parse_args()
    try:
        with browser() as tab:
            tab.size(given.width, given.height)
            tab.prefer(color_scheme="dark" if given.dark else "light")
            tab.open(given.url)
            tab.until(given.until)
            tab.screenshot(given.file)
    except (BrowserFailed, PackagesUnavailable, AssertionError) as fault:
        print(f"testbed.browser: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
