"""The same ranks with the machine's own NCCL on two GPUs, where it has them."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from kybernate.model.ids import GpuUuid
from nodeagent.mechanisms import NotYet, halting

MIB = 2**20
PATIENCE_S = 60.0
NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
}


def gpus():
    if not shutil.which("nvidia-smi"):
        return ()
    asked = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return tuple(GpuUuid(one) for one in shown.split())


def nccl():
    """The folder of libnccl.so.2, as PyTorch has it."""
    import importlib.util

    found = importlib.util.find_spec("nvidia.nccl")
    return next((f"{one}/lib" for one in (found.submodule_search_locations if found else ())), "")


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(len(gpus()) < 2, reason="there are no two GPUs (nvidia-smi)"),
]


@pytest.fixture(scope="module")
def real_node(libraries, node_on):
    """An agent on both cards. Its pool is in a tmpfs: no other file can be pinned."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-p-", dir="/dev/shm"))
    made = node_on(folder, libraries, real=True)
    made.gpus = gpus()[:2]
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def job(real_node):
    """Two ranks, a card each, with memory and a communicator."""
    path = os.pathsep.join(filter(None, (nccl(), os.environ.get("LD_LIBRARY_PATH"))))
    with real_node.job(BY_DEVICE="1", CARDS="2", LD_LIBRARY_PATH=path, **NO_MULTICAST) as made:
        made.places = made.each("alloc", 64 * MIB)
        for number, rank in enumerate(made.ranks):
            rank.fill(made.places[number], 64 * MIB, number)
        made.join()
        for rank in made.ranks:
            rank.send("all_reduce")
        for rank in made.ranks:
            rank.receive()
        made.each("synchronize")
        yield made


def whole(job):
    return all(
        rank.holds(job.places[number], 64 * MIB, number) for number, rank in enumerate(job.ranks)
    )


def test_ranks_under_load_are_parked_and_resumed_as_one(real_node, job):
    for number, rank in enumerate(job.ranks):
        rank.train(100 * number, 20)
    for _ in range(5):
        job.goes_on()
        slot, kept = real_node.park(job)
        assert {one.uuid for one in kept} == set(real_node.gpus)
        real_node.resume(job, slot, kept)
    assert whole(job)
    assert [told["wrong"] for told in job.each("trained")] == [0, 0]


def test_a_rank_that_never_comes_costs_the_limit_and_the_job_goes_on(real_node, job):
    first, second = job.ranks
    first.all_reduce()
    with pytest.raises(NotYet, match="do not come to stand"):
        real_node.mechanism.lock(job.body, 0.5)
    first.all_reduce()
    second.all_reduce()
    second.all_reduce()
    job.each("synchronize")
    real_node.resume(job, *real_node.park(job))
    assert whole(job)


def test_a_rank_ahead_is_met_by_the_other_before_they_are_parked(real_node, job):
    first, second = job.ranks
    first.all_reduce()
    late = second.later("all_reduce_after", 0.5)
    slot, kept = real_node.park(job)
    late.answer()
    assert len({one.lines[0].started for one in standing(real_node, job)}) == 1
    real_node.resume(job, slot, kept)
    job.each("synchronize")
    assert whole(job)


def standing(node, job):
    return halting.standings(node.mechanism.guests(job.body))


def test_what_nccl_shares_stays_and_is_named(real_node, job):
    left = real_node.mechanism.left(replace(job.body, gpus=real_node.gpus))
    kinds = {line.split(" ", 2)[2] for line in left}
    assert "communicators of NCCL" in kinds
    assert "memory of other processes" not in kinds
