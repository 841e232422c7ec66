"""
`training.py REPORT STEPS [PAUSE_MS]`: a training loop in PyTorch (AdamW), the same every time.

Writes a checksum of the bits of all weights at the end, to be compared with an undisturbed run's.
"""

import sys
import time

import torch
from report import Report
from torch import nn

WIDTH = 2048


def main() -> None:
    """STEPS steps."""
    report, steps = Report(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(24))).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    times, told = [], 0.0
    for step in range(steps):
        torch.cuda.synchronize()
        began = time.perf_counter()
        x = torch.randn(512, WIDTH, device="cuda")
        loss = (model(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
        if time.monotonic() - told > 0.01:
            told = time.monotonic()
            report.write(steps=step)
    sums = [int(p.detach().view(torch.int32).long().sum()) for p in model.parameters()]
    order = sorted(times[5:])
    report.write(steps=steps, ended=True, checksum=sums, loss=float(loss.detach()),
                 median_ms=order[len(order) // 2] * 1e3)  # fmt: skip


if __name__ == "__main__":
    main()
