"""
Building the images of manifests/images/Dockerfile with no container engine and no registry.

`bases` makes stand-ins for what the Dockerfile starts from, `buildah` builds on them, `trial` runs
what was built; `python -m testbed.imaging` does all of it.
Called by: people through `make images`, which has tests/stack install from what was built.
Rule: the Dockerfile is built as it is. What differs from a build of yours is what it starts from.
"""

from testbed.imaging.bases import BaseFailed
from testbed.imaging.buildah import Buildah, BuildahFailed, why_not
from testbed.imaging.trial import TrialFailed

__all__ = ["BaseFailed", "Buildah", "BuildahFailed", "TrialFailed", "why_not"]
