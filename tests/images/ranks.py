"""
Runs in a container: two ranks that meet at torch's store, one of them counting in it.

`python -c SOURCE`. Prints the count. In a pod called "woken" it answers a call to the store that
has waited since before; what that brought is printed, too.
"""

import multiprocessing
import os
import threading
from datetime import timedelta

from torch.distributed import TCPStore

LONG = timedelta(minutes=10)
CLIENTS = 3
NEVER = threading.Event()


def store(first=False):
    return TCPStore("127.0.0.1", 29500, CLIENTS, first, LONG)


def second_rank():
    counts, waits = store(), store()
    counts.set("weights", b"w" * 2**20)
    threading.Thread(target=await_word, args=(waits,), daemon=True).start()
    while not NEVER.wait(0.05):
        counts.add("steps", 1)


def await_word(waits):
    waits.set("waiting", b"yes")
    waits.wait(["word"], LONG)
    waits.set("heard", waits.get("word"))


other = multiprocessing.get_context("fork").Process(target=second_rank, daemon=True)
other.start()
mine = store(first=True)
mine.wait(["weights", "waiting"], LONG)
while other.is_alive():
    print(mine.add("steps", 0), flush=True)
    if os.uname().nodename == "woken":
        mine.set("word", b"heard")
        mine.wait(["heard"], LONG)
        print(mine.get("heard").decode(), len(mine.get("weights")), flush=True)
    NEVER.wait(0.1)
