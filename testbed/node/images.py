"""
Container images made here, without a registry: one layer, as an OCI archive.

Called by: `testbed.node.realnode`, which imports them; tests that want an image of their own.
Rule: the same content makes the same bytes, so both nodes have the same image by its digest.
"""

import hashlib
import io
import json
import os
import platform
import stat
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath

BUSYBOX_COMMANDS = (
    *(
        "cat",
        "date",
        "echo",
        "env",
        "false",
        "hostname",
        "httpd",
        "id",
        "ip",
        "kill",
        "ls",
        "mkdir",
    ),
    *("nc", "ps", "rm", "sh", "sleep", "stat", "tail", "test", "touch", "true", "wget"),
)
_FOLDERS = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/tmp")
_OPEN = {"tmp", "var/tmp"}
_LEFT_OUT = {
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "tkinter",
    "turtledemo",
}
# Extension modules that bring a desktop's libraries, or only serve Python's own tests.
_NOT_WANTED = ("_tkinter.", "_test", "xx")
_SITE = "/usr/local/lib/packages"
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
    links: dict[str, Content] = {f"/bin/{name}": "busybox" for name in BUSYBOX_COMMANDS}
    return Image(
        tree={"/bin/busybox": busybox, **links, **_libraries([busybox])},
        entrypoint=["/bin/sh"],
        environment={"PATH": "/bin"},
    )


def python(
    distributions: Iterable[str] = (), packages: Iterable[Path] = (), *, busybox: Path | None = None
) -> Image:
    """This very interpreter with its library, some installed distributions and some packages.

    Distributions bring what they require; packages are folders, importable by their name.
    A copy, not mounts: processes map files of their image, as they do in production.
    """
    tree = dict(_interpreter())
    for name in sorted(_with_requirements(distributions)):
        tree.update(_distribution(name))
    for package in packages:
        tree[f"{_SITE}/{package.name}"] = package
    program = "/usr/local/bin/python3"
    tree |= {program: Path(sys.executable).resolve(), "/usr/local/bin/python": "python3"}
    if busybox:
        tree |= box(busybox).tree
    tree |= _libraries(_binaries(tree))
    home = {"PYTHONHOME": sys.base_prefix, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    path = {"PATH": "/usr/local/bin:/bin", "PYTHONPATH": _SITE}
    return Image(tree=tree, entrypoint=[program], environment={**home, **path})


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
        if entry.name not in _LEFT_OUT and not entry.name.startswith(_NOT_WANTED):
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


def _stdlib() -> str:
    return sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})


def _interpreter() -> dict[str, Content]:
    """Its library at the place where it looks for it, without what others installed into it."""
    stdlib = Path(_stdlib())
    kept = [
        entry
        for entry in stdlib.iterdir()
        if entry.name not in {*_LEFT_OUT, "site-packages", "dist-packages"}
        and not entry.name.startswith("config-")
    ]
    return {str(entry): entry for entry in kept}


@cache
def _requirements(name: str) -> tuple[str, ...]:
    required = metadata.requires(name) or []
    plain = [one.split(";")[0] for one in required if "extra ==" not in one]
    names = [one.translate(str.maketrans("<>=!~[(", "       ")).split()[0] for one in plain]
    return tuple(other for other in names if _installed(other))


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _with_requirements(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _requirements(name)
    return found


def _distribution(name: str) -> Iterator[tuple[str, Content]]:
    for file in metadata.files(name) or []:
        path = Path(str(file.locate()))
        inside = not str(file).startswith("..") and not _LEFT_OUT & set(file.parts)
        if inside and path.is_file():
            yield f"{_SITE}/{file}", path


def _binaries(tree: Mapping[str, Content]) -> list[Path]:
    """What needs shared libraries: the interpreter and the extension modules."""
    found = []
    for content in tree.values():
        if isinstance(content, Path):
            found += [content] if content.is_file() else list(content.rglob("*.so*"))
    wanted = [path for path in found if not path.name.startswith(_NOT_WANTED)]
    return [path for path in wanted if path.suffix == ".so" or os.access(path, os.X_OK)]


def _libraries(programs: Iterable[Path]) -> dict[str, Content]:
    """The shared libraries these need, with their loader, at the paths the loader looks at."""
    argv = ["ldd", *map(str, programs)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    words = {word for line in done.stdout.splitlines() for word in line.split()}
    paths = [Path(word) for word in words if word.startswith("/") and not word.endswith(":")]
    return {str(path): path.resolve() for path in paths if path.is_file()}
