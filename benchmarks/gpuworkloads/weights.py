"""
`weights.py REPORT GIB`: PyTorch with GIB of bf16 weights in tensors of 64 MiB, normally distributed
as those of models are; a product with each of them without end, compared with its first one.
"""

import sys
import time

import torch
from report import Report

WIDTH = 4096


def main() -> None:
    """Until killed. Asked for it (.verify), the bits of all weights are summed again."""
    report, told = Report(sys.argv[1]), 0.0
    torch.manual_seed(0)
    count = int(float(sys.argv[2]) * 2**30) // (2 * WIDTH * 2 * WIDTH)
    weights = [
        torch.randn(2 * WIDTH, WIDTH, device="cuda").mul_(0.02).bfloat16() for _ in range(count)
    ]
    torch.cuda.empty_cache()
    sums = [checksum(one) for one in weights]
    x = torch.randn(WIDTH, 64, device="cuda").bfloat16()
    first: dict[int, torch.Tensor] = {}
    steps, wrong, verified = 0, 0, 0
    while True:
        number = steps % count
        answer = weights[number] @ x
        wrong += not torch.equal(first.setdefault(number, answer), answer)
        steps += 1
        if report.wants("verify"):
            wrong += sum(checksum(one) != was for one, was in zip(weights, sums, strict=True))
            verified, told = verified + 1, 0.0
        if time.monotonic() - told > 0.01:
            told = time.monotonic()
            report.write(steps=steps, wrong=wrong, verified=verified)


def checksum(weights: torch.Tensor) -> int:
    """Of a tensor's bits, by their places."""
    bits = weights.view(torch.int16).flatten().long()
    return int((bits * torch.arange(1, bits.numel() + 1, device="cuda")).sum())


if __name__ == "__main__":
    main()
