"""
A container's first process: starts the same program once for each rank, and waits.

`launcher.py PROGRAM FROM:TO ...`: a rank's descriptors for its input and output; its card is its
place, by CUDA_VISIBLE_DEVICES or, with BY_DEVICE set, by its number in DEVICE.
"""

import os
import subprocess
import sys

ranks = []
for place, pair in enumerate(sys.argv[2:]):
    source, target = map(int, pair.split(":"))
    how = "DEVICE" if "BY_DEVICE" in os.environ else "CUDA_VISIBLE_DEVICES"
    environment = {**os.environ, how: str(place % int(os.environ["CARDS"]))}
    command = [sys.executable, sys.argv[1]]
    ranks.append(subprocess.Popen(command, stdin=source, stdout=target, env=environment))
for rank in ranks:
    rank.wait()
