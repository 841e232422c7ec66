"""
The binaries of the testbed: built from Go modules once, or unpacked from Debian
packages, then found in the cache folder.

`ensure` is the whole interface; `python -m testbed.assets` is the same for people.
Called by: `testbed.controlplane`, `testbed.opa`, the tests' fixtures.
Rule: what stands in the cache folder under its final name is whole; drafts have other names.
Rule: `KYB_ASSETS`, when set, is a folder of prebuilt binaries, and nothing is built.
"""

from testbed.assets.apt import PackagesUnavailable
from testbed.assets.cache import BuildFailed, MissingAssets, cache_folder, ensure, have
from testbed.assets.catalog import ALL, CONTROL_PLANE, NODE, NODE_BUILT, NODE_PACKAGED, USUAL, Asset
from testbed.assets.toolchain import GoUnavailable

__all__ = [
    "ALL",
    "CONTROL_PLANE",
    "NODE",
    "NODE_BUILT",
    "NODE_PACKAGED",
    "USUAL",
    "Asset",
    "BuildFailed",
    "GoUnavailable",
    "MissingAssets",
    "PackagesUnavailable",
    "cache_folder",
    "ensure",
    "have",
]
