"""The folder on a disk that is full, broken, or loses power; links where objects should be."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kybernate.stores.disk import Disk
from kybernate.stores.errors import Absent, Faulty, NoRoom
from kybernate.stores.nvme import Nvme

LARGE = os.urandom(5 * 2**20 + 11)


class Failing(Disk):
    """Fails the call of this name with this error, at its n-th time."""

    def __init__(self, call: str, code: int, at: int = 0) -> None:
        self._call, self._code, self._left = call, code, at

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("_") and name == self._call:
            if not self._left:
                raise OSError(self._code, os.strerror(self._code))
            self._left -= 1
        return super().__getattribute__(name)


@pytest.mark.parametrize("call", ["open", "preallocate", "write", "truncate", "sync", "rename"])
@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, NoRoom), (errno.EIO, Faulty)])
def test_a_put_that_fails_leaves_what_was_there(
    tmp_path: Path, call: str, code: int, kind: type[Exception]
) -> None:
    good = Nvme(tmp_path)
    good.put("a/b", b"before")
    store = Nvme(tmp_path, Failing(call, code))
    with pytest.raises(kind):
        store.put("a/b", LARGE)
    assert bytes(good.get("a/b")) == b"before"
    assert not _drafts(tmp_path)
    assert [one.key for one in good.list()] == ["a/b"]


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    store = Nvme(tmp_path, Failing("write", errno.EIO, at=1))
    with pytest.raises(Faulty):
        store.put("a", LARGE)
    assert not list(store.list())


def test_a_read_that_fails_is_told(tmp_path: Path) -> None:
    Nvme(tmp_path).put("a", LARGE)
    with pytest.raises(Faulty):
        Nvme(tmp_path, Failing("read", errno.EIO)).get("a")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here: " + mounted.stderr.decode())
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(small: Path) -> None:
    store = Nvme(small)
    store.put("one", LARGE)
    with pytest.raises(NoRoom):
        store.put("two", LARGE)
    assert bytes(store.get("one")) == LARGE
    assert [one.key for one in store.list()] == ["one"]
    assert store.delete("one")
    store.put("two", LARGE)
    assert bytes(store.get("two")) == LARGE


def test_links_and_drafts_are_no_objects(tmp_path: Path) -> None:
    store = Nvme(tmp_path / "store")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "store/link").symlink_to(tmp_path / "secret")
    (tmp_path / "store/drafts/half").write_bytes(b"half")
    for ask in (store.get, store.stat):
        with pytest.raises(Absent):
            ask("link")
    assert not list(store.list())
    Nvme(tmp_path / "store")
    assert not _drafts(tmp_path / "store")


def _drafts(store: Path) -> list[Path]:
    return [path for path in (store / "drafts").rglob("*") if path.is_file()]


def test_what_another_process_is_writing_stays_and_what_a_dead_one_wrote_goes(
    tmp_path: Path,
) -> None:
    """Real: two processes, one of which is killed in the middle of a put."""
    program = (
        "import sys, threading; from pathlib import Path\n"
        "from kybernate.stores.disk import Disk; from kybernate.stores.nvme import Nvme\n"
        "class Slow(Disk):\n"
        "    def rename(self, old, new): print(old, flush=True); sys.stdin.readline(); "
        "super().rename(old, new)\n"
        "Nvme(Path(sys.argv[1]), Slow()).put('a/b', b'x' * 1_000_000)\n"
    )
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    slow, dying = begun
    drafts = []
    for one in begun:
        assert one.stdout
        drafts.append(Path(one.stdout.readline().strip()))
    dying.kill()
    dying.wait()
    store = Nvme(tmp_path)
    assert drafts[0].exists()
    assert not drafts[1].exists()
    assert not list(store.list())
    slow.communicate("\n", timeout=60)
    assert slow.returncode == 0
    assert len(store.get("a/b")) == 1_000_000
    for one in begun:
        for pipe in (one.stdin, one.stdout):
            if pipe:
                pipe.close()


@dataclass
class Recording(Disk):
    """The real disk, and what of it a loss of power would leave: after each call, a picture.

    A file has its bytes as of its last sync; a name is there as of the last sync of its folder.
    `pictures` holds, for each call, the names that survive and their bytes.
    """

    root: Path
    _open: dict[int, Path] = field(default_factory=dict)
    _inode: dict[Path, object] = field(default_factory=dict)
    _synced: dict[object, bytes] = field(default_factory=dict)
    _durable: dict[Path, object] = field(default_factory=dict)
    pictures: list[dict[str, bytes]] = field(default_factory=list)

    def open(self, path: Path, flags: int) -> int:
        fd = super().open(path, flags)
        self._open[fd] = path
        if flags & os.O_CREAT:
            self._inode[path] = object()
        return fd

    def sync(self, fd: int) -> None:
        super().sync(fd)
        path = self._open[fd]
        if path.is_dir():
            self._durable = {p: i for p, i in self._durable.items() if p.parent != path}
            self._durable |= {p: i for p, i in self._inode.items() if p.parent == path}
        else:
            self._synced[self._inode[path]] = path.read_bytes()
        self._picture()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._inode[new] = self._inode.pop(old)
        self._picture()

    def remove(self, path: Path) -> None:
        super().remove(path)
        del self._inode[path]
        self._picture()

    def make_folder(self, path: Path) -> bool:
        made = super().make_folder(path)
        self._inode.setdefault(path, path)
        self._picture()
        return made

    def _picture(self) -> None:
        kept = {}
        for path, inode in self._durable.items():
            above = [one for one in path.parents if self.root in one.parents]
            if inode is not path and all(one in self._durable for one in above):
                kept[str(path.relative_to(self.root))] = self._synced.get(inode, b"")
        self.pictures.append(kept)


def test_only_what_was_synced_survives_and_that_is_whole(tmp_path: Path) -> None:
    """At every moment a name has all its bytes or is not there; the second is there only with the
    first, and what `put` and `delete` returned from stays."""
    disk = Recording(tmp_path)
    store = Nvme(tmp_path, disk)
    store.put("domains/d/packs/aa/pack", LARGE)
    after_pack = len(disk.pictures)
    store.put("manifests/n/one", b"names the pack")
    after_manifest = len(disk.pictures)
    store.put("manifests/n/one", b"replaced")
    after_replacing = len(disk.pictures)
    store.delete("manifests/n/one")
    after_deleting = len(disk.pictures)
    store.delete("domains/d/packs/aa/pack")
    for at, kept in enumerate(disk.pictures):
        objects = {key: body for key, body in kept.items() if not key.startswith("drafts")}
        pack, manifest = objects.get("domains/d/packs/aa/pack"), objects.get("manifests/n/one")
        assert pack in (None, LARGE)
        assert manifest in (None, b"names the pack", b"replaced")
        assert manifest is None or pack == LARGE, "a manifest without its pack"
        if after_pack <= at + 1 <= after_deleting:
            assert pack == LARGE
        if after_manifest <= at + 1 < after_replacing:
            assert manifest is not None
    assert disk.pictures[after_manifest - 1]["manifests/n/one"] == b"names the pack"
    assert disk.pictures[after_replacing - 1]["manifests/n/one"] == b"replaced"
    assert "manifests/n/one" not in disk.pictures[after_deleting - 1]
    assert "domains/d/packs/aa/pack" not in disk.pictures[-1]
