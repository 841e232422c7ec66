"""
Where an image's files are, and those of a restoration.

Called by: `nodeagent.images.dumping`, `nodeagent.images.restoring`.
An image's folder: `criu/` (what CRIU and runc write), `rootfs.tar` (changes to the root file
system), `volumes/` (what is carried of other mounts), `config.json` (what the container was made
of), `identity.json` (who it was), `image.json` (what it fits).
A restoration's folder, `<bundle>/kyb-wake`, goes with the bundle: `criu/` (links to the image's
files, and our own in place of what must differ), `criu.conf`, `work/` (CRIU's logs), `touched`.
"""

CRIU = "criu"
WAKE = "kyb-wake"
WORK = "work"
OPTIONS = "criu.conf"
CONFIG = "config.json"
TOUCHED = "touched"  # once the container's files are changed; kybernate-runc knows it, too
