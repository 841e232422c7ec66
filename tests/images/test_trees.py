"""Packing and unpacking of strangers' folders. Real: files on disk."""

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from nodeagent.images import rootfs, tree

ME = os.geteuid(), os.getegid()
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def folders(tmp_path):
    """An empty one to pack, and an empty one to unpack into."""
    made = tmp_path / "from", tmp_path / "into"
    for one in made:
        one.mkdir()
    return made


def packed(folder):
    out = io.BytesIO()
    tree.pack(folder, out)
    out.seek(0)
    return out


def archive(*members):
    """A tar file of (TarInfo fields, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for fields, content in members:
            info = tarfile.TarInfo(fields["name"])
            info.size = len(content)
            for name, value in fields.items():
                setattr(info, name, value)
            tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out


def test_a_tree_comes_back_as_it_was(folders):
    source, into = folders
    (source / "a").mkdir(mode=0o750)
    (source / "a" / "file").write_bytes(b"x" * 3_000_000)
    (source / "a" / "file").chmod(0o4755)
    (source / "a" / "again").hardlink_to(source / "a" / "file")
    (source / "link").symlink_to("/nowhere")
    os.mkfifo(source / "fifo", 0o620)
    os.utime(source / "a" / "file", (1, 1_000_000.5))
    os.utime(source / "a", (1, 2_000_000))
    source.chmod(0o1777)
    tree.unpack(packed(source), into)
    file = (into / "a" / "file").stat()
    assert (file.st_size, stat.S_IMODE(file.st_mode), file.st_mtime) == (
        3_000_000,
        0o4755,
        1e6 + 0.5,
    )
    assert file.st_ino == (into / "a" / "again").stat().st_ino
    assert (into / "link").readlink() == (source / "link").readlink()
    assert stat.S_ISFIFO((into / "fifo").stat().st_mode)
    assert (into / "a").stat().st_mtime == 2_000_000
    assert [stat.S_IMODE(one.stat().st_mode) for one in (into, into / "a")] == [0o1777, 0o750]


def test_what_is_there_is_replaced_and_the_rest_stays(folders):
    source, into = folders
    (source / "becomes-a-folder").mkdir()
    (source / "becomes-a-file").write_text("new")
    (source / "kept").mkdir()
    (into / "becomes-a-folder").write_text("old")
    (into / "becomes-a-file").mkdir()
    (into / "becomes-a-file" / "old").touch()
    (into / "kept").mkdir()
    (into / "kept" / "old").touch()
    tree.unpack(packed(source), into)
    assert (into / "becomes-a-folder").is_dir()
    assert (into / "becomes-a-file").read_text() == "new"
    assert (into / "kept" / "old").exists()


def test_sockets_are_left_to_who_listens(folders):
    import socket

    source, into = folders
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(source / "s"))
        tree.unpack(packed(source), into)
    assert not (into / "s").exists()


@pytest.mark.parametrize(
    "name", ["../out", "/out", "a/../../out", "a//b", "./a", "a/.", "", "..", "a/"]
)
def test_a_name_that_leads_elsewhere_is_refused(folders, name):
    with pytest.raises(tree.BadTree):
        tree.unpack(
            archive(({"name": "a", "type": tarfile.DIRTYPE}, b""), ({"name": name}, b"x")),
            folders[1],
        )
    assert not (folders[1].parent / "out").exists()


@pytest.mark.parametrize("target", ["..", "/"])
def test_a_link_in_the_tree_is_not_a_way_out(folders, target):
    link = {"name": "door", "type": tarfile.SYMTYPE, "linkname": target}
    with pytest.raises((tree.BadTree, OSError)):
        tree.unpack(archive((link, b""), ({"name": "door/out"}, b"x")), folders[1])
    assert not (folders[1].parent / "out").exists()


def test_a_link_that_was_there_is_not_a_way_out(folders):
    _, into = folders
    (into / "door").symlink_to(into.parent)
    with pytest.raises((tree.BadTree, OSError)):
        tree.unpack(archive(({"name": "door/out"}, b"x")), into)
    tree.unpack(archive(({"name": "door", "mode": 0o600}, b"mine")), into)
    assert (into / "door").read_text() == "mine"
    assert (into.parent).is_dir()


def test_a_hard_link_to_outside_is_refused(folders):
    (folders[1].parent / "secret").write_text("s")
    for target in ("../secret", str(folders[1].parent / "secret")):
        link = {"name": "mine", "type": tarfile.LNKTYPE, "linkname": target}
        with pytest.raises(tree.BadTree):
            tree.unpack(archive((link, b"")), folders[1])


@pytest.mark.parametrize("kind", [tarfile.BLKTYPE, tarfile.CHRTYPE])
def test_device_files_are_refused(folders, kind):
    device = {"name": "sda", "type": kind, "devmajor": 8, "devminor": 0}
    with pytest.raises(tree.BadTree, match="device files"):
        tree.unpack(archive((device, b"")), folders[1])


def test_what_is_no_tar_file_is_refused(folders):
    whole = packed(folders[0]).getvalue()
    for broken in (b"no tar at all" * 100, whole[:100], bytes(700)[:0] + b"\xff" * 1024):
        with pytest.raises(tree.BadTree):
            tree.unpack(io.BytesIO(broken), folders[1])


def test_a_file_is_put_in_new_folders_but_not_through_links(folders):
    _, into = folders
    assert tree.put(into, "run/kyb/identity.json", b"{}", ME)
    assert (into / "run/kyb/identity.json").read_text() == "{}"
    assert tree.put(into, "run/kyb/identity.json", b"[]", ME)
    assert (into / "run/kyb/identity.json").read_text() == "[]"
    (into / "var").symlink_to(into.parent)
    assert not tree.put(into, "var/kyb/identity.json", b"{}", ME)
    assert not (into.parent / "kyb").exists()


@ROOT
def test_removals_and_replaced_folders_of_an_overlay_are_carried(tmp_path):
    upper, merged, into = (tmp_path / name for name in ("upper", "merged", "into"))
    for folder in (upper / "replaced", merged / "replaced", into / "replaced"):
        folder.mkdir(parents=True)
    os.setxattr(upper / "replaced", "trusted.overlay.opaque", b"y")
    for folder in (upper, merged):
        (folder / "replaced" / "new").write_text("new")
    os.mknod(upper / "removed", stat.S_IFCHR, 0)
    (into / "replaced" / "old").touch()
    (into / "removed").mkdir()
    (into / "removed" / "with").touch()
    out = io.BytesIO()
    rootfs.pack(upper, merged, out)
    out.seek(0)
    tree.unpack(out, into)
    assert sorted(one.name for one in into.rglob("*")) == ["new", "replaced"]


@ROOT
def test_a_renamed_folder_is_carried_with_all_that_is_below(tmp_path):
    upper, merged, into = (tmp_path / name for name in ("upper", "merged", "into"))
    (upper / "new-name").mkdir(parents=True)
    os.setxattr(upper / "new-name", "trusted.overlay.redirect", b"/old-name")
    (merged / "new-name" / "deep").mkdir(parents=True)
    (merged / "new-name" / "deep" / "file").write_text("from a lower layer")
    into.mkdir()
    out = io.BytesIO()
    rootfs.pack(upper, merged, out)
    out.seek(0)
    tree.unpack(out, into)
    assert (into / "new-name" / "deep" / "file").read_text() == "from a lower layer"


def test_the_upper_layer_is_found_by_the_mount_that_is_on_top(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 0:1 / /b/rootfs rw - ext4 /dev/a rw\n"
        "2 1 0:2 / /b/rootfs rw - overlay overlay rw,lowerdir=/l,upperdir=/a\\040b/fs,workdir=/w\n"
        "3 0 0:3 / /other rw - overlay overlay rw,lowerdir=/l,upperdir=/c/fs,workdir=/w\n"
    )
    assert str(rootfs.upper(tmp_path.__class__("/b/rootfs"), table)) == "/a b/fs"
    table.write_text("1 0 0:1 / /b/rootfs rw - ext4 /dev/a rw\n")
    for path in ("/b/rootfs", "/nothing"):
        with pytest.raises(rootfs.NoOverlay):
            rootfs.upper(tmp_path.__class__(path), table)


def test_a_layer_is_found_where_the_node_has_it_too(tmp_path):
    """An agent in a container sees containerd's folder by way of the node's first process."""
    (tmp_path / "here").mkdir()
    assert rootfs.reached(tmp_path / "here") == tmp_path / "here"
    node, layer = tmp_path / "node", Path("/nowhere/containerd/fs")
    (node / "nowhere/containerd/fs").mkdir(parents=True)
    assert rootfs.reached(layer, node) == node / "nowhere/containerd/fs"
    with pytest.raises(rootfs.NoOverlay, match="cannot be reached from here"):
        rootfs.reached(layer, tmp_path / "other")
