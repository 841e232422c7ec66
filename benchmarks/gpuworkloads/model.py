"""
`model.py REPORT LAYERS [STEPS]`: a transformer in PyTorch serving without a pause, by a CUDA graph.

Every answer is compared bit for bit with the first one; every fifth also without the graph. With
STEPS it ends after so many and writes the time of each, for the comparison of overheads.
"""

import sys
import time

import torch
from report import Report
from torch import nn

WIDTH, HEADS, LENGTH, BATCH = 4096, 32, 128, 4


class Layer(nn.Module):
    """Attention and a feed-forward network, as they all are: 0.4 GiB in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        query, key, value = (
            part.view(*x.shape[:2], HEADS, -1).transpose(1, 2)
            for part in self.mix(self.norm1(x)).chunk(3, dim=-1)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(x.shape))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def build(layers: int) -> nn.Module:
    """Random weights, the same every time."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        return nn.Sequential(*(Layer() for _ in range(layers))).eval()


def main() -> None:
    """Until killed, or for STEPS."""
    report, began = Report(sys.argv[1]), time.monotonic()
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    with torch.inference_mode():
        model = build(int(sys.argv[2]))
        x = torch.randn(BATCH, LENGTH, WIDTH, device="cuda")
        for _ in range(3):
            model(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = model(x)
        graph.replay()
        first = y.clone()
        ready = time.monotonic() - began
        gib = torch.cuda.memory_reserved() / 2**30
        done, wrong, times, told = 0, 0, [], 0.0
        while not steps or done < steps:
            step = time.perf_counter()
            graph.replay()
            answers = [y] if done % 5 else [y, model(x)]
            wrong += sum(not torch.equal(first, one) for one in answers)
            times.append(time.perf_counter() - step)
            done += 1
            if time.monotonic() - told > 0.01:
                told = time.monotonic()
                report.write(steps=done, wrong=wrong, ready=ready, gib=gib)
    order = sorted(times[5:])
    report.write(steps=done, wrong=wrong, ended=True, median_ms=order[len(order) // 2] * 1e3,
                 p99_ms=order[len(order) * 99 // 100] * 1e3)  # fmt: skip


if __name__ == "__main__":
    main()
