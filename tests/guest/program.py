"""
A CUDA program that does what it is told, a line of JSON at a time, and answers with one.

Started by the tests with the guest library preloaded and the fake driver in LD_LIBRARY_PATH.
Addresses are numbers; contents are random bytes of a seed, so that they can be checked later.
"""

import ctypes
import hashlib
import json
import os
import random
import struct
import sys
import threading
from functools import cache
from pathlib import Path

CUDA = ctypes.CDLL("libcuda.so.1")
U64, SIZE, POINTER = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p


class Wrong(Exception):
    pass


def do(name, *arguments):
    code = getattr(CUDA, name)(*arguments)
    if code:
        raise Wrong(f"{name} {code}")


def start():
    context = POINTER()
    do("cuInit", 0)
    do("cuDevicePrimaryCtxRetain", ctypes.byref(context), int(os.environ.get("DEVICE", "0")))
    do("cuCtxSetCurrent", context)
    return os.getpid()


def alloc(size):
    at = U64()
    do("cuMemAlloc_v2", ctypes.byref(at), SIZE(size))
    return at.value


def alloc_many(size, most):
    """Until one fails. How many there were."""
    at = U64()
    for count in range(most):
        if CUDA.cuMemAlloc_v2(ctypes.byref(at), SIZE(size)):
            return count
    return most


def alloc_in_order(size):
    at = U64()
    do("cuMemAllocAsync", ctypes.byref(at), SIZE(size), POINTER(0))
    return at.value


def free(at):
    do("cuMemFree_v2", U64(at))


def free_in_order(at):
    do("cuMemFreeAsync", U64(at), POINTER(0))


def fill(at, size, seed):
    data = random.Random(seed).randbytes(size)
    do("cuMemcpyHtoD_v2", U64(at), data, SIZE(size))


def fill_weights(at, size, seed):
    """Numbers of a normal distribution as bf16, every 2 MiB another mixture of some thousand."""
    mixture = random.Random(seed)
    for first in range(0, size, 2**21):
        numbers = (mixture.gauss(0, 0.02) for _ in range(4096))
        tile = b"".join(struct.pack("<f", number)[2:] for number in numbers)
        count = min(2**21, size - first)
        data = (tile * (count // len(tile) + 1))[:count]
        do("cuMemcpyHtoD_v2", U64(at + first), data, SIZE(count))


def clear(at, size):
    do("cuMemsetD8_v2", U64(at), ctypes.c_uint8(0), SIZE(size))


def holds(at, size, seed):
    into = ctypes.create_string_buffer(size)
    do("cuMemcpyDtoH_v2", into, U64(at), SIZE(size))
    return into.raw == random.Random(seed).randbytes(size)


def range_of(at):
    base, size = U64(), SIZE()
    do("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), U64(at))
    return [base.value, size.value]


def busy(seconds):
    function, value = POINTER(), ctypes.c_double(seconds)
    do("cuModuleGetFunction", ctypes.byref(function), POINTER(1), b"busy")
    arguments = (POINTER * 1)(ctypes.cast(ctypes.pointer(value), POINTER))
    do("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, POINTER(0), arguments, POINTER(0))


def stick(at):
    """Work that waits until the number at `at` is one."""
    stream = POINTER()
    do("cuStreamCreate", ctypes.byref(stream), 1)
    do("cuStreamWaitValue32_v2", stream, U64(at), 1, 1)  # 1: until it is equal


def unstick(at):
    stream, one = POINTER(), ctypes.c_uint32(1)
    do("cuStreamCreate", ctypes.byref(stream), 1)
    do("cuMemcpyHtoDAsync_v2", U64(at), ctypes.byref(one), SIZE(4), stream)
    do("cuStreamSynchronize", stream)


def capture(on):
    graph = POINTER()
    if on:
        do("cuStreamBeginCapture_v2", POINTER(0), 0)
    else:
        do("cuStreamEndCapture", POINTER(0), ctypes.byref(graph))


def proc_address(name, version):
    found = POINTER()
    do("cuGetProcAddress", name.encode(), ctypes.byref(found), version, U64(0))
    return library_of(found.value)


def symbol(name):
    return library_of(ctypes.cast(getattr(CUDA, name), POINTER).value)


def library_of(address):
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= address < high:
            return Path(line.split()[-1]).name
    return ""


class Properties(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("handles", ctypes.c_int),
        ("where", ctypes.c_int),
        ("device", ctypes.c_int),
        ("windows", POINTER),
        ("rest", ctypes.c_uint8 * 8),
    ]


def create(size):
    """Physical memory of the program's own; its handle."""
    handle, made = U64(), Properties(type=1, where=1)
    do("cuMemCreate", ctypes.byref(handle), SIZE(size), ctypes.byref(made), U64(0))
    return handle.value


def map_(handle, size):
    at, access = U64(), (ctypes.c_int * 3)(1, 0, 3)
    do("cuMemAddressReserve", ctypes.byref(at), SIZE(size), SIZE(0), U64(0), U64(0))
    do("cuMemMap", at, SIZE(size), SIZE(0), U64(handle), U64(0))
    do("cuMemSetAccess", at, SIZE(size), access, SIZE(1))
    return at.value


def unmap(at, size):
    do("cuMemUnmap", U64(at), SIZE(size))


def release(handle):
    do("cuMemRelease", U64(handle))


def share(handle):
    descriptor = ctypes.c_int()
    do("cuMemExportToShareableHandle", ctypes.byref(descriptor), U64(handle), 1, U64(0))
    os.close(descriptor.value)


class Ticket(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint8 * 64)]


def ticket(at):
    made = Ticket()
    do("cuIpcGetMemHandle", ctypes.byref(made), U64(at))
    return list(made.bytes)


def open_ticket(given):
    at = U64()
    do("cuIpcOpenMemHandle_v2", ctypes.byref(at), Ticket((ctypes.c_uint8 * 64)(*given)), 1)
    return at.value


def close_ticket(at):
    do("cuIpcCloseMemHandle", U64(at))


def managed(size):
    at = U64()
    do("cuMemAllocManaged", ctypes.byref(at), SIZE(size), 1)
    return at.value


def fork():
    """What a child finds: its own start as a guest, and its own memory."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            start()
            at = alloc(3 << 20)
            fill(at, 3 << 20, 5)
            os.write(writing, b"right" if holds(at, 3 << 20, 5) else b"wrong")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        return told.read().decode()


def fork_idle():
    """A child that does something else, as a data loader; its number."""
    child = os.fork()
    if child == 0:
        threading.Event().wait()
    return child


def end(child):
    os.kill(child, 9)
    os.waitpid(child, 0)


_churning = threading.Event()
_churned = {"rounds": 0, "wrong": 0}


def _churn(seed):
    do("cuCtxSetCurrent", _churn.context)
    chance = random.Random(seed)
    while not _churning.is_set():
        size = chance.choice((100, 5000, 3 << 20))
        at = alloc(size)
        fill(at, size, seed)
        _churned["wrong"] += not holds(at, size, seed)
        free(at)
        _churned["rounds"] += 1


def churn(threads):
    """Threads that allocate, write, read and free without end."""
    _churn.context = POINTER()
    do("cuCtxGetCurrent", ctypes.byref(_churn.context))
    for seed in range(threads):
        threading.Thread(target=_churn, args=(seed,), daemon=True).start()


def churned():
    return dict(_churned)


_working = threading.Event()


def _work(context, at, size):
    do("cuCtxSetCurrent", context)
    while _working.is_set():
        do("cuMemsetD8_v2", U64(at), ctypes.c_uint8(1), SIZE(size))
        do("cuCtxSynchronize")


def works(at, size):
    """A kernel behind the other, each waited for, without end."""
    context = POINTER()
    do("cuCtxGetCurrent", ctypes.byref(context))
    _working.set()
    threading.Thread(target=_work, args=(context, at, size), daemon=True).start()


def rests():
    _working.clear()


def works_off(at, size, times):
    """So many kernels are submitted; nobody waits for them."""
    for _ in range(times):
        do("cuMemsetD8Async", U64(at), ctypes.c_uint8(1), SIZE(size), POINTER(0))


# Collectives, with a libnccl that is loaded late and looked up by name, as vLLM does.
_communicators, _graphs, _trained = [], [], {"steps": 0, "wrong": 0, "on": False}


@cache
def _nccl():
    return ctypes.CDLL("libnccl.so.2")


def nccl(name, *arguments):
    code = getattr(_nccl(), name)(*arguments)
    if code:
        raise Wrong(f"{name} {code}")


class UniqueId(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 128)]


def unique_id():
    made = UniqueId()
    nccl("ncclGetUniqueId", ctypes.byref(made))
    return bytes(made).hex()


def _buffer():
    """What is sent and received; collectives need no more."""
    if "at" not in _trained:
        _trained["at"] = alloc(4096)
    return POINTER(_trained["at"])


def join(unique, ranks, rank):
    """The number of the communicator."""
    _buffer()
    made = POINTER()
    nccl("ncclCommInitRank", ctypes.byref(made), ranks, UniqueId.from_buffer_copy(
        bytes.fromhex(unique)), rank)  # fmt: skip
    _communicators.append(made)
    return len(_communicators) - 1


def split(of, color, key):
    made = POINTER()
    nccl("ncclCommSplit", _communicators[of], color, key, ctypes.byref(made), POINTER(0))
    _communicators.append(made)
    return len(_communicators) - 1


def leave(one):
    nccl("ncclCommDestroy", _communicators[one])


def all_reduce(one=0, stream=0):
    nccl("ncclAllReduce", _buffer(), _buffer(), SIZE(64), 7, 0, _communicators[one],
         POINTER(stream))  # fmt: skip


def all_reduce_after(seconds):
    threading.Event().wait(seconds)
    all_reduce()


def together(*calls):
    """A group: `["all_reduce", communicator]`, `["ncclSend", communicator, peer]`, ..."""
    nccl("ncclGroupStart")
    for name, one, *rest in calls:
        if name == "all_reduce":
            all_reduce(one)
        else:
            nccl(name, _buffer(), SIZE(64), 7, rest[0], _communicators[one], POINTER(0))
    nccl("ncclGroupEnd")


def send_to(peer, one=0):
    nccl("ncclSend", _buffer(), SIZE(64), 7, peer, _communicators[one], POINTER(0))


def receive_from(peer, one=0):
    nccl("ncclRecv", _buffer(), SIZE(64), 7, peer, _communicators[one], POINTER(0))


def graph_of(count):
    """A graph of so many; its number."""
    stream, graph, made = POINTER(), POINTER(), POINTER()
    do("cuStreamCreate", ctypes.byref(stream), 1)
    do("cuStreamBeginCapture_v2", stream, 0)
    for _ in range(count):
        all_reduce(0, stream.value)
    do("cuStreamEndCapture", stream, ctypes.byref(graph))
    do("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, U64(0))
    _graphs.append(made)
    return len(_graphs) - 1


def launch(graph):
    do("cuGraphLaunch", _graphs[graph], POINTER(0))


def synchronize():
    do("cuCtxSynchronize")


def _train(context, seed, ahead):
    do("cuCtxSetCurrent", context)
    at = alloc(3 << 20)
    while _trained["on"]:
        fill(at, 3 << 20, seed + _trained["steps"])
        for _ in range(ahead):
            all_reduce()
        synchronize()
        _trained["wrong"] += not holds(at, 3 << 20, seed + _trained["steps"])
        _trained["steps"] += 1


def train(seed, ahead):
    """Steps without end, of so many collectives each."""
    context = POINTER()
    do("cuCtxGetCurrent", ctypes.byref(context))
    _trained["on"] = True
    threading.Thread(target=_train, args=(context, seed, ahead), daemon=True).start()


def trained():
    return dict(_trained)


def steady():
    """What C++ takes for the time, in seconds."""
    now = ctypes.CDLL(None)._ZNSt6chrono3_V212steady_clock3nowEv
    now.restype = ctypes.c_int64
    return now() / 1e9


def load_another_nccl(path):
    ctypes.CDLL(path).ncclAllReduce  # noqa: B018 - looked up


def hashed(at, size):
    into = ctypes.create_string_buffer(size)
    do("cuMemcpyDtoH_v2", into, U64(at), SIZE(size))
    return hashlib.sha256(into.raw).hexdigest()


for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        print(json.dumps(["ok", globals()[name](*arguments)]), flush=True)
    except Wrong as error:
        print(json.dumps(["wrong", str(error)]), flush=True)
