"""
Secret volumes without a kubelet: a Secret's keys as files, kept up to date.

Called by: those who run our processes on this machine (`testbed.stack`), in a thread or, for a
stack that outlives its caller, as a program whose arguments `program` gives.
Rule: as the kubelet does it: each key is a link to `..data/key`, and `..data` is a link that is
replaced by one rename, so a reader sees all keys of one version of the Secret or of the next.
Rule: a Secret that is deleted leaves its last content, and so does an API server that is away.
"""

import base64
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Set
from pathlib import Path
from types import TracebackType

from testbed.api import Api, ApiError
from testbed.pki import Pair

PERIOD_S = 1.0
"""The kubelet takes up to a minute; nobody wants to wait for that here."""
_DATA = "..data"


class SecretProjection:
    """Writes one Secret into a folder, from a thread, until it is stopped. A context manager."""

    def __init__(self, api: Api, namespace: str, name: str, folder: Path) -> None:
        self.folder = folder
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        self._written = threading.Event()
        self._stop = threading.Event()
        self._content: dict[str, bytes] | None = None
        self._thread = threading.Thread(target=self.run, name=f"secret {name}", daemon=True)

    def start(self) -> "SecretProjection":
        """Begin; the first look at the Secret is at once."""
        self._thread.start()
        return self

    def __enter__(self) -> "SecretProjection":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_for(self, seconds: float = 30.0) -> Path:
        """The folder, once the Secret has been written. Raises TimeoutError."""
        if not self._written.wait(seconds):
            raise TimeoutError(f"no Secret at {self._path} after {seconds:g} s")
        return self.folder

    def stop(self) -> None:
        """End the thread; the files stay."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def run(self) -> None:
        """What the thread does; a program calls it itself."""
        while True:
            self.look()
            if self._stop.wait(PERIOD_S):
                return

    def look(self) -> None:
        """Write the Secret's content where it differs from what was written last."""
        try:
            found = self._api.get(self._path).get("data", {})
        except ApiError:
            return
        content = {key: base64.b64decode(value) for key, value in found.items()}
        if content != self._content:
            write(self.folder, content)
            self._content = content
            self._written.set()


def write(folder: Path, content: Mapping[str, bytes]) -> None:
    """Make the folder's visible files those of `content`, all at once. Files have mode 0600."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = folder / _DATA
    old = before.resolve() if before.is_symlink() else None
    version = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    for key, value in content.items():
        descriptor = os.open(version / key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(value)
    _point(before, version.name)
    _show(folder, content)
    _sweep(folder, {version.name, old.name if old else ""})


def _sweep(folder: Path, kept: Set[str]) -> None:
    """Old versions go, but for the last one: a reader may be between the link and the file."""
    for entry in folder.iterdir():
        if entry.name.startswith("..") and not entry.is_symlink() and entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True)


def _show(folder: Path, content: Mapping[str, bytes]) -> None:
    """The visible links: new keys get one, keys that went lose theirs."""
    for key in content:
        if not (folder / key).is_symlink():
            _point(folder / key, f"{_DATA}/{key}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in content:
            entry.unlink()


def _point(link: Path, target: str) -> None:
    draft = link.with_name(f"..draft.{link.name.lstrip('.')}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)


def program(api: Api, namespace: str, secrets: Mapping[str, Path]) -> list[str]:
    """The command that does this, for each Secret into its folder, until it is ended.

    Its `ready`: each `(folder / "..data").exists()`. For `Processes.start`.
    """
    files = [str(f.absolute()) for f in (api.authority, api.client.certificate, api.client.key)]
    pairs = [part for name, folder in secrets.items() for part in (name, str(folder.absolute()))]
    return [sys.executable, "-m", "testbed.projection", api.server, namespace, *files, *pairs]


def _main() -> None:
    server, namespace, authority, certificate, key, *pairs = sys.argv[1:]
    api = Api(server, Path(authority), Pair(Path(certificate), Path(key)))
    found = zip(pairs[::2], pairs[1::2], strict=True)
    projections = [SecretProjection(api, namespace, name, Path(folder)) for name, folder in found]
    for one in projections[1:]:
        one.start()
    projections[0].run()


if __name__ == "__main__":
    _main()
