"""Images without their pages of zeros. Real: CRIU, where it may be run. Faked: image files."""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kybernate.testing.imagefiles import LAZY, PARENT, PRESENT, entry, image
from nodeagent.images import pages, wire, zeros
from nodeagent.images.wire import Message
from testbed.node import programs

MIB = 2**20
PIECE = 16 * pages.PAGE


def memory(folder, number=1):
    """What a restoration would find where: by address, pages that are in the file."""
    _, entries = wire.read(folder / f"pagemap-{number}.img")
    content, found, first = (folder / f"pages-{number}.img").read_bytes(), {}, 0
    for raw in entries[1:]:
        one = pages.run(Message(raw))
        for at in range(0, one.bytes_here, pages.PAGE):
            found[one.address + at] = content[first : first + pages.PAGE]
            first += pages.PAGE
    assert first == len(content)
    return found


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def same(before, after):
    """Nothing but zeros is away, and what is there is where it was."""
    assert after.items() <= before.items()
    assert not any(any(page) for at, page in before.items() if at not in after)


def test_zeros_go_and_all_else_stays_where_it_was(tmp_path):
    mixed = noise(3 * MIB) + bytes(20 * MIB) + noise(MIB, 2) + bytes(MIB) + noise(pages.PAGE, 3)
    image(tmp_path, (0x10000, noise(MIB, 4), PRESENT), (0x7F0000000000, mixed, LAZY | PRESENT))
    before = memory(tmp_path)
    assert zeros.take_out(tmp_path) == 21 * MIB
    pages.check(tmp_path)
    same(before, memory(tmp_path))
    assert len(memory(tmp_path)) == (5 * MIB + pages.PAGE) // pages.PAGE


@pytest.mark.parametrize("flags", [PRESENT, LAZY | PRESENT | PARENT])
def test_zeros_over_something_else_stay(tmp_path, flags):
    image(tmp_path, (0x10000, bytes(32 * MIB), flags))
    before = memory(tmp_path)
    assert zeros.take_out(tmp_path) == 0
    assert memory(tmp_path) == before


def test_for_little_nothing_is_moved(tmp_path):
    image(tmp_path, (0x10000, noise(MIB) + bytes(15 * MIB), LAZY | PRESENT))
    before = memory(tmp_path)
    assert zeros.take_out(tmp_path) == 0
    assert memory(tmp_path) == before


def test_one_byte_keeps_its_piece(tmp_path):
    content = bytearray(40 * MIB)
    chance = random.Random(5)
    for _ in range(20):
        content[chance.randrange(len(content))] = 1
    image(tmp_path, (0x10000, bytes(content), LAZY | PRESENT))
    before = memory(tmp_path)
    assert zeros.take_out(tmp_path) >= 40 * MIB - 20 * PIECE
    same(before, memory(tmp_path))


def test_a_process_of_zeros_only_has_no_pages(tmp_path):
    image(tmp_path, (0x10000, bytes(32 * MIB), LAZY | PRESENT))
    assert zeros.take_out(tmp_path) == 32 * MIB
    pages.check(tmp_path)
    assert memory(tmp_path) == {}


def test_each_process_has_its_own_map(tmp_path):
    image(tmp_path, (0x10000, bytes(20 * MIB) + noise(MIB), LAZY | PRESENT), number=1)
    image(tmp_path, (0x10000, noise(MIB, 2) + bytes(20 * MIB), LAZY | PRESENT), number=2)
    before = [memory(tmp_path, number) for number in (1, 2)]
    assert zeros.take_out(tmp_path) == 40 * MIB
    for number, was in enumerate(before, 1):
        same(was, memory(tmp_path, number))


def test_runs_that_are_not_in_the_file_take_nothing_of_it(tmp_path):
    absent = (0x900000000, bytes(MIB), LAZY)
    image(tmp_path, (0x10000, bytes(20 * MIB), LAZY | PRESENT), absent,
          (0xA00000000, noise(MIB), LAZY | PRESENT))  # fmt: skip
    before = memory(tmp_path)
    zeros.take_out(tmp_path)
    same(before, memory(tmp_path))
    _, entries = wire.read(tmp_path / "pagemap-1.img")
    assert entry(0x900000000, MIB // pages.PAGE, LAZY) in entries


def test_a_file_that_is_too_short_is_no_image(tmp_path):
    image(tmp_path, (0x10000, bytes(20 * MIB), LAZY | PRESENT))
    (tmp_path / "pages-1.img").write_bytes(bytes(MIB))
    with pytest.raises(wire.NotAnImage, match="fewer pages"):
        zeros.take_out(tmp_path)


def test_counts_of_both_widths_are_kept(tmp_path):
    whole = Message(entry(0x10000, 64, long=True))
    part = Message(pages.run(whole).part(whole, 2 * pages.PAGE, 5 * pages.PAGE))
    assert [part.number(field) for field in (1, 2, 4, 5)] == [0x12000, 5, LAZY | PRESENT, 5]


_PROGRAM = """
import hashlib, mmap, os, random, sys, time
memory = mmap.mmap(-1, 96 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
chance = random.Random(1)
for at in range(0, 96 << 20, 1 << 20):
    memory[at:at + (1 << 20)] = chance.randbytes(1 << 20) if at >> 20 & 1 else bytes(1 << 20)
data = bytearray(40 << 20)
child = os.fork()  # shares its pages, and changes some to zeros and some from zeros
if not child:
    memory[1 << 20:2 << 20] = bytes(1 << 20)
    memory[0:4096] = b"1" * 4096
def told():
    whole = hashlib.sha256(memory[:]).hexdigest() + hashlib.sha256(data).hexdigest()
    with open(sys.argv[1] + (".parent" if child else ".child"), "w") as file:
        file.write(whole)
told()
while not os.path.exists(sys.argv[1] + ".again"):
    time.sleep(0.01)
told()
os._exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="CRIU needs root")
def test_what_criu_makes_of_it_is_what_was_dumped(tmp_path):
    criu = programs.find().criu
    said, folder = tmp_path / "said", tmp_path / "image"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(said)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        files = [Path(f"{said}.{who}") for who in ("parent", "child")]
        was = [_read(file) for file in files]
        _criu(criu, "dump", folder, "--tree", str(process.pid))
        process.wait()
        assert zeros.take_out(folder) >= 80 * MIB
        _gone(folder)
        for file in files:
            file.unlink()
        Path(f"{said}.again").touch()
        _criu(criu, "restore", folder, "--restore-detached")
        assert [_read(file) for file in files] == was
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _gone(folder):
    """Their numbers are free: who lost its parent is waited for by somebody else."""
    until = time.monotonic() + 60.0
    numbers = [core.stem.removeprefix("core-") for core in folder.glob("core-*.img")]
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < until
        threading.Event().wait(0.01)


def _read(file):
    until = time.monotonic() + 60.0
    while not file.exists() or len(text := file.read_text()) < 128:
        assert time.monotonic() < until
        threading.Event().wait(0.01)
    return text


def _criu(criu, verb, folder, *more):
    argv = [str(criu), verb, "--images-dir", str(folder), "--log-file", f"{verb}.log", *more]
    done = subprocess.run([*argv, "--network-lock", "skip"], capture_output=True, check=False)
    if done.returncode:
        log = (folder / f"{verb}.log").read_text(errors="replace")
        pytest.fail("\n".join(line for line in log.splitlines() if "Error" in line)[-2000:])
