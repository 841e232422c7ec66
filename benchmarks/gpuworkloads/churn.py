"""`churn.py REPORT GIB`: PyTorch threads that allocate, write, read and give back without end."""

import sys
import threading
import time

import torch
from report import Report

_THREADS = 4
_DONE = [0] * _THREADS
_WRONG = [0] * _THREADS


def churn(number: int) -> None:
    """One thread, on a stream of its own; every eighth round the allocator's cache is emptied."""
    torch.manual_seed(number)
    sizes = torch.randint(1, 2**23, (64,)).tolist()
    with torch.cuda.stream(torch.cuda.Stream()):
        while True:
            size = sizes[_DONE[number] % len(sizes)]
            made = torch.full((size,), number + 1, dtype=torch.int32, device="cuda")
            _WRONG[number] += int(made.sum(dtype=torch.int64)) != size * (number + 1)
            _DONE[number] += 1
            del made
            if _DONE[number] % 8 == 0:
                torch.cuda.empty_cache()


def main() -> None:
    """Until killed; the rest of GIB is compared now and then."""
    report = Report(sys.argv[1])
    count = int(float(sys.argv[2]) * 2**28)
    kept = torch.randint(0, 2**31, (count,), dtype=torch.int32, device="cuda")
    before = int(kept.sum(dtype=torch.int64))
    for number in range(_THREADS):
        threading.Thread(target=churn, args=(number,), daemon=True).start()
    wrong = 0
    while True:
        wrong += int(kept.sum(dtype=torch.int64)) != before
        report.write(steps=sum(_DONE), wrong=wrong + sum(_WRONG))
        time.sleep(0.01)


if __name__ == "__main__":
    main()
