"""
Container images made here, without a registry: one layer, as an OCI archive.

Called by: `testbed.node.realnode`, which imports them; tests that want an image of their own.
Rule: the same content makes the same bytes, so both nodes have the same image by its digest.
"""

import hashlib
import io
import json
import platform
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

BUSYBOX_COMMANDS = (
    "cat date echo env false grep hostname httpd id ip kill ls mkdir nc ps rm sh sleep stat tail "
    "test touch true wget"
)
_FOLDERS = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp")
_OPEN = {"tmp", "var/tmp"}
_LEFT_OUT = {"__pycache__"}
_PAUSE = Path(__file__).with_name("pause.c")
_JSON = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class NoImage(Exception):
    """An image cannot be made on this machine; the message says why."""


Content = Path | bytes | str
"""A file or folder of the machine, bytes of a file, or the target of a symbolic link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image holds and starts."""

    tree: Mapping[str, Content]
    """By absolute path in the image."""
    entrypoint: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"


def pause(work: Path) -> Image:
    """The pod's own container, compiled here. Raises NoImage."""
    program = work / "pause"
    argv = ["cc", "-Os", "-s", "-static", "-o", str(program), str(_PAUSE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoImage(f"the C compiler does not make static programs here: {done.stderr.strip()}")
    return Image(tree={"/pause": program}, entrypoint=["/pause"])


def box(busybox: Path) -> Image:
    """A shell and small tools."""
    links: dict[str, Content] = {f"/bin/{name}": "busybox" for name in BUSYBOX_COMMANDS.split()}
    return Image(
        tree={"/bin/busybox": busybox, **links, **libraries([busybox])},
        entrypoint=["/bin/sh"],
        environment={"PATH": "/bin"},
    )


def write(named: Mapping[str, Image], file: Path) -> Path:
    """An archive for `ctr images import`, holding these images by name. Returns `file`."""
    blobs: dict[str, bytes] = {}
    manifests = []
    for name, image in named.items():
        manifest = _manifest(image, blobs)
        manifests.append(manifest | {"annotations": {"io.containerd.image.name": name}})
    index = {"schemaVersion": 2, "manifests": manifests}
    with tarfile.open(file, "w") as archive:
        _put(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _put(archive, "index.json", json.dumps(index).encode())
        for digest, blob in blobs.items():
            _put(archive, f"blobs/sha256/{digest}", blob)
    return file


def _manifest(image: Image, blobs: dict[str, bytes]) -> dict[str, object]:
    """The descriptor of its manifest; everything it leads to is added to `blobs`, by digest."""
    layer = _layer(image)
    config = json.dumps(_config(image, layer)).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_JSON}.manifest.v1+json",
            "config": _described("config.v1+json", config),
            "layers": [_described("layer.v1.tar", layer)],
        }
    ).encode()
    blobs |= {_sha256(blob): blob for blob in (layer, config, manifest)}
    return _described("manifest.v1+json", manifest)


def _config(image: Image, layer: bytes) -> dict[str, object]:
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Entrypoint": list(image.entrypoint),
            "Env": [f"{key}={value}" for key, value in image.environment.items()],
            "WorkingDir": image.folder,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
    }


def _described(kind: str, blob: bytes) -> dict[str, object]:
    digest = f"sha256:{_sha256(blob)}"
    return {"mediaType": f"{_JSON}.{kind}", "digest": digest, "size": len(blob)}


def _layer(image: Image) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        entries: dict[str, Content | None] = dict.fromkeys(_FOLDERS)
        for path, content in image.tree.items():
            entries.update(_spread(path.lstrip("/"), content))
        for path in [str(p) for name in entries for p in PurePosixPath(name).parents if p.name]:
            entries.setdefault(path, None)
        for path in sorted(entries):
            _add(layer, path, entries[path])
    return out.getvalue()


def _spread(path: str, content: Content) -> Iterator[tuple[str, Content | None]]:
    """The entries of a folder; of anything else, itself."""
    if not (isinstance(content, Path) and content.is_dir()):
        yield path, content
        return
    yield path, None
    for entry in content.iterdir():
        if entry.name not in _LEFT_OUT:
            inner: Content = str(entry.readlink()) if entry.is_symlink() else entry
            yield from _spread(f"{path}/{entry.name}", inner)


def _add(layer: tarfile.TarFile, path: str, content: Content | None) -> None:
    entry = tarfile.TarInfo(path)
    if content is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if path in _OPEN else 0o755
        layer.addfile(entry)
    elif isinstance(content, str):
        entry.type, entry.linkname = tarfile.SYMTYPE, content
        layer.addfile(entry)
    elif isinstance(content, Path):
        executable = content.stat().st_mode & stat.S_IXUSR
        _put(layer, path, content.read_bytes(), 0o755 if executable else 0o644)
    else:
        _put(layer, path, content)


def _put(archive: tarfile.TarFile, path: str, blob: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(blob), mode
    archive.addfile(entry, io.BytesIO(blob))


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def libraries(programs: Iterable[Path]) -> dict[str, Content]:
    """The shared libraries these need, with their loader, at the paths the loader looks at."""
    argv = ["ldd", *map(str, programs)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    words = {word for line in done.stdout.splitlines() for word in line.split()}
    paths = [Path(word) for word in words if word.startswith("/") and not word.endswith(":")]
    return {str(path): path.resolve() for path in paths if path.is_file()}
