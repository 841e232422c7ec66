"""`arrays.py REPORT GIB`: CuPy with its pool; a chain of steps compared with their first round."""

import sys
import time

import cupy
from report import Report

ROUND = 16


def main() -> None:
    """Until killed."""
    report, told = Report(sys.argv[1]), 0.0
    count = int(float(sys.argv[2]) * 2**30 / 8)
    keep = cupy.random.RandomState(1).randint(0, 2**31, count // 2, dtype=cupy.int64)
    first: list[int] = []
    state, steps, wrong = keep, 0, 0
    while True:
        if steps % ROUND == 0:
            state = keep
        state = state * 6364136223846793005 + 1442695040888963407
        total = int(state.sum())
        if len(first) < ROUND:
            first.append(total)
        wrong += total != first[steps % ROUND]
        steps += 1
        if time.monotonic() - told > 0.01:
            told = time.monotonic()
            report.write(steps=steps, wrong=wrong)


if __name__ == "__main__":
    main()
