"""Preparing a container for its image. Real: files. Faked: CRIU, which is not called for it."""

import io
import json
from pathlib import Path

import pytest

from nodeagent.images import RuncImages, Unrestorable, facts, tree, wire

HEAD = b"\x19\x43\x56\x54\x00\x00\x00\x00"
CONFIG = {
    "process": {"env": ["NAME=old", "SECRET=s3cret"]},
    "mounts": [],
    "annotations": {"a": "b"},
}


@pytest.fixture
def images():
    return RuncImages(None, criu="false", plugins=Path("/plugins"))


@pytest.fixture
def image(tmp_path):
    """`image(name)`: a small one of this machine."""

    def make(name="image", **fields):
        folder = tmp_path / name
        (folder / "criu").mkdir(parents=True)
        wire.write(folder / "criu" / "files.img", HEAD, [])
        (folder / "criu" / "pages-1.img").write_bytes(b"")
        (folder / facts.FILE).write_text(json.dumps({**facts._here(), "criu": "", **fields}))
        (folder / "config.json").write_text(json.dumps(CONFIG))
        identity = {"addresses": [], "environment": {"NAME": "old", "SECRET": "s3cret"}}
        (folder / "identity.json").write_text(json.dumps(identity))
        changed = tmp_path / f"{name}-changed"
        changed.mkdir()
        (changed / f"of-{name}").write_text(name)
        out = io.BytesIO()
        tree.pack(changed, out)
        (folder / "rootfs.tar").write_bytes(out.getvalue())
        return folder

    return make


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    (folder / "rootfs").mkdir(parents=True)
    config = {**CONFIG, "process": {"env": ["NAME=new", "SECRET=other"]}}
    config["linux"] = {"cgroupsPath": "/kubepods/pod1/new"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_what_runc_is_to_be_told_is_answered_and_its_config_names_our_options(
    images, image, bundle
):
    made = image()
    fields = images.restoration(made, bundle)
    assert fields["image"] == str(bundle / "kyb-wake" / "criu")
    assert Path(fields["work"]).is_dir()
    assert "NAME, SECRET stay as they were" in fields["changed"]
    assert "s3cret" not in fields["changed"]
    annotations = json.loads((bundle / "config.json").read_text())["annotations"]
    assert annotations["a"] == "b"
    options = Path(annotations["org.criu.config"]).read_text().splitlines()
    wanted = {"leave-stopped", "libdir /plugins", "cgroup-root /kubepods/pod1/new"}
    assert wanted <= set(options)
    assert (bundle / "rootfs" / "of-image").read_text() == "image"
    told = json.loads((bundle / "rootfs/run/kyb/identity.json").read_text())
    assert told["now"]["environment"]["NAME"] == "new"
    link = bundle / "kyb-wake" / "criu" / "pages-1.img"
    assert not link.readlink().is_absolute()
    assert link.resolve() == (made / "criu" / "pages-1.img").resolve()


def test_being_asked_again_is_fine(images, image, bundle):
    made = image()
    assert images.restoration(made, bundle) == images.restoration(made, bundle)


def test_a_container_with_the_files_of_one_image_takes_no_other(images, image, bundle):
    images.restoration(image("first"), bundle)
    with pytest.raises(Unrestorable, match="prepared for another checkpoint"):
        images.restoration(image("second"), bundle)
    assert not (bundle / "rootfs" / "of-second").exists()


@pytest.mark.parametrize("lost", ["image.json", "config.json", "identity.json", "criu/files.img"])
def test_an_image_that_lacks_something_is_refused_before_the_container_is_touched(
    images, image, bundle, lost
):
    made = image()
    (made / lost).unlink()
    before = (bundle / "config.json").read_bytes()
    with pytest.raises(Exception, match=Path(lost).name):
        images.restoration(made, bundle)
    assert list((bundle / "rootfs").iterdir()) == []
    assert (bundle / "config.json").read_bytes() == before
    assert not (bundle / "kyb-wake" / "touched").exists()


def test_an_image_of_another_kernel_is_refused_in_words(images, image, bundle):
    with pytest.raises(Unrestorable, match=r"made under kernel 1\.0, and here is"):
        images.restoration(image(kernel="1.0"), bundle)
