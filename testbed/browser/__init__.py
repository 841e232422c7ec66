"""
A headless Chromium to look at pages with, out of pinned Debian packages.

Called by: tests of the page, and `python -m testbed.browser URL FILE` for a screenshot.
It is spoken to over a pipe in the DevTools protocol, so nothing listens and nothing is installed.
"""

from testbed.browser.chromium import BrowserFailed, browser
from testbed.browser.tab import Tab

__all__ = ["BrowserFailed", "Tab", "browser"]
