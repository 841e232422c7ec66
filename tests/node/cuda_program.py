"""
An ordinary CUDA program that knows nothing of us: it fills memory of the card, changes some of it
all the time, and says in a file how far it is and whether all of it is as it has to be.

Started in pods: `python3 cuda_program.py FILE MEGABYTES`, with libcuda.so.1 where the loader looks.
"""

import ctypes
import hashlib
import json
import random
import sys
import threading
from pathlib import Path

BUFFER = 4 << 20
PAUSE = threading.Event()
CUDA = ctypes.CDLL("libcuda.so.1")
U64, SIZE, POINTER = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p


def do(name, *arguments):
    code = getattr(CUDA, name)(*arguments)
    if code:
        sys.exit(f"{name} {code}")


def allocate():
    at = U64()
    do("cuMemAlloc_v2", ctypes.byref(at), SIZE(BUFFER))
    return at


def main(file, megabytes):
    context = POINTER()
    do("cuInit", 0)
    do("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    do("cuCtxSetCurrent", context)
    contents = [random.Random(i).randbytes(BUFFER) for i in range(megabytes * 2**20 // BUFFER)]
    buffers = [allocate() for _ in contents]
    for at, content in zip(buffers, contents, strict=True):
        do("cuMemcpyHtoD_v2", at, content, SIZE(BUFFER))
    back = ctypes.create_string_buffer(BUFFER)
    rounds = wrong = 0
    while True:
        which = rounds % len(buffers)
        do("cuMemcpyDtoH_v2", back, buffers[which], SIZE(BUFFER))
        wrong += hashlib.sha256(back.raw).digest() != hashlib.sha256(contents[which]).digest()
        contents[which] = random.Random(rounds + 1000).randbytes(BUFFER)
        do("cuMemcpyHtoD_v2", buffers[which], contents[which], SIZE(BUFFER))
        rounds += 1
        tell(Path(file), {"rounds": rounds, "wrong": wrong})
        PAUSE.wait(0.02)


def tell(file, what):
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(what))
    draft.replace(file)


main(sys.argv[1], int(sys.argv[2]))
