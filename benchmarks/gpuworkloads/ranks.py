"""
`ranks.py REPORT LAYERS`: a tensor-parallel chain of matrix products on two cards, in PyTorch.

One process for each card below this one (or RANKS_TOGETHER=1: one process for both). After each
layer the halves are summed by NCCL, so no rank gets a layer ahead on its card. Each cycle of CYCLE
steps begins at the same input, so what a step leaves is known from an undisturbed run: its bits are
summed and compared, step by step. In the environment:

RANKS_READ_EVERY  steps between two looks at the results (1: as when serving; 64: as when training)
RANKS_GRAPH       1: a step is a CUDA graph
RANKS_GROUPS      2: every other layer is summed in a second communicator
RANKS_TIMEOUT     seconds of the process group's time-out
RANKS_EXPECTED    a file of sums to compare with; without it the run's own first cycle
RANKS_END         so many steps, and the sums are told
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from report import Report

CYCLE, WIDTH, INNER, BATCH = 64, 8192, 16384, 512
CARDS = 2
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def option(name: str, usual: int) -> int:
    """One of the numbers above."""
    return int(os.environ.get(f"RANKS_{name}", usual))


def launch(report: Report, path: str, layers: str) -> None:
    """Start the ranks and tell of all what each tells, until one ends."""
    count = 1 if option("TOGETHER", 0) else CARDS
    whole = Path(path)
    files = [whole.with_name(f"{whole.stem}-{rank}.json") for rank in range(count)]
    for file in files:
        file.unlink(missing_ok=True)
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(file), layers],
            env={**os.environ, "RANKS_RANK": str(rank)},
        )
        for rank, file in enumerate(files)
    ]
    while all(one.poll() is None for one in ranks):
        tell(report, files)
        time.sleep(0.005)
    for one in ranks:
        one.wait(60.0)
    tell(report, files)
    sys.exit(max(abs(one.returncode) for one in ranks))


def tell(report: Report, files: list[Path]) -> None:
    """All of them in one."""
    told = [json.loads(file.read_text()) for file in files if file.exists()]
    if len(told) == len(files):
        report.write(
            steps=min(one["steps"] for one in told),
            wrong=sum(one["wrong"] for one in told),
            ended=all(one.get("ended") for one in told),
            alike=len({str(one.get("sums")) for one in told}) == 1,
            sums=told[0].get("sums"),
            median_ms=max(one["median_ms"] for one in told),
        )


class Rank:
    """One process: its cards' halves of the weights, and the steps."""

    def __init__(self, torch: Any, rank: int, layers: int) -> None:
        self.torch, self.layers = torch, layers
        self.cards = list(range(CARDS)) if option("TOGETHER", 0) else [rank]
        torch.cuda.set_device(self.cards[0])
        if len(self.cards) == 1:
            torch.distributed.init_process_group(
                "nccl",
                rank=rank,
                world_size=CARDS,
                init_method=f"tcp://127.0.0.1:{option('PORT', 29511)}",
                timeout=timedelta(seconds=option("TIMEOUT", 600)),
                device_id=torch.device("cuda", rank),
            )
        others = range(1, option("GROUPS", 1))
        self.groups = [None, *(torch.distributed.new_group(range(CARDS)) for _ in others)]
        chance = torch.Generator().manual_seed(7)
        begin = torch.randn(BATCH, WIDTH, generator=chance)
        weigh = torch.randint(1, 2**30, (BATCH, WIDTH), generator=chance)
        self.begin = [begin.to(f"cuda:{card}", torch.bfloat16) for card in self.cards]
        self.weigh = weigh.to(f"cuda:{self.cards[0]}")
        self.weights = [[self._layer(card) for card in self.cards] for _ in range(layers)]

    def _layer(self, card: int) -> tuple[Any, Any]:
        torch = self.torch
        chance = torch.Generator(device=f"cuda:{card}")
        chance.manual_seed(1000 + card)
        how = {"device": f"cuda:{card}", "dtype": torch.bfloat16}
        up = torch.empty(WIDTH, INNER, **how).normal_(0, WIDTH**-0.5, generator=chance)
        down = torch.empty(INNER, WIDTH, **how).normal_(0, INNER**-0.5, generator=chance)
        return up, down

    def step(self, states: list[Any]) -> list[Any]:
        """All layers once."""
        torch = self.torch
        for number, layer in enumerate(self.weights):
            halves = []
            for card, state, (up, down) in zip(self.cards, states, layer, strict=True):
                with torch.cuda.device(card):
                    halves.append(torch.relu(state @ up) @ down)
            self._sum(halves, self.groups[number % len(self.groups)])
            states = [
                torch.nn.functional.rms_norm(state + half, (WIDTH,))
                for state, half in zip(states, halves, strict=True)
            ]
        return states

    def _sum(self, halves: list[Any], group: Any) -> None:
        if len(halves) == 1:
            self.torch.distributed.all_reduce(halves[0], group=group)
        else:
            self.torch.cuda.nccl.all_reduce(halves, outputs=halves)

    def bits(self, state: Any) -> Any:
        """A weighted sum of a state's bits: one bit more or less is another sum."""
        return (state.view(self.torch.int16).to(self.torch.int64) * self.weigh).sum()


class Steps:
    """How steps are made: one by one, or as a graph's launches."""

    def __init__(self, rank: Rank) -> None:
        self._rank, self._states, self._graph = rank, list(rank.begin), None
        rank.step(self._states)  # libraries take what they need
        rank.torch.cuda.synchronize()
        if option("GRAPH", 0):
            self._capture(rank.torch)

    def _capture(self, torch: Any) -> None:
        self._states = [one.clone() for one in self._rank.begin]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            self._rank.step(self._states)
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._states[0].copy_(self._rank.step(self._states)[0])
            self._bits = self._rank.bits(self._states[0])

    def make(self, number: int) -> Any:
        """One step; the sum of its bits, on the card."""
        anew = number % CYCLE == 0
        if self._graph is not None:
            if anew:
                self._states[0].copy_(self._rank.begin[0])
            self._graph.replay()
            return self._bits
        if anew:
            self._states = list(self._rank.begin)
        self._states = self._rank.step(self._states)
        return self._rank.bits(self._states[0])


def run(report: Report, rank: Rank) -> None:
    """Until killed, or so many steps."""
    torch, every, end = rank.torch, option("READ_EVERY", 1), option("END", 0)
    expected = os.environ.get("RANKS_EXPECTED")
    known: list[int] = json.loads(Path(expected).read_text()) if expected else []
    seen, wrong, number, times = list(known), 0, 0, [0.0]
    results = torch.zeros(every, dtype=torch.int64, device=f"cuda:{rank.cards[0]}")
    steps = Steps(rank)
    last = told = time.monotonic()
    while not end or number < end:
        results[number % every] = steps.make(number)
        number += 1
        if number % every:
            continue
        for place, bits in enumerate(results.tolist()):
            at = number - every + place
            if len(seen) < CYCLE:
                seen.append(bits)
            wrong += bits != seen[at % CYCLE]
        now = time.monotonic()
        times.append((now - last) / every)
        last = now
        if now - told > 0.01 or number >= end > 0:
            told = now
            order = sorted(times[-100:])
            report.write(
                steps=number,
                wrong=wrong,
                ended=number >= end > 0,
                median_ms=order[len(order) // 2] * 1e3,
                sums=seen if number >= CYCLE else None,
            )


def main() -> None:
    """The launcher, or one of its ranks."""
    report = Report(sys.argv[1])
    if "RANKS_RANK" not in os.environ:
        launch(report, *sys.argv[1:3])
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    import torch

    with torch.inference_mode():
        run(report, Rank(torch, int(os.environ["RANKS_RANK"]), int(sys.argv[2])))
    os._exit(0)  # the process group's threads are not waited for


if __name__ == "__main__":
    main()
