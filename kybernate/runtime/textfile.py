"""Reading a file that people wrote, with a sentence for every way in which it cannot be read."""

from pathlib import Path


class Unreadable(OSError):
    """The message names the file, and why."""


def read(path: Path, what: str) -> str:
    """Its text. `what` is for people, as "the profile file". Raises Unreadable."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Unreadable(f"{what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        where = f"at byte {error.start}"
        raise Unreadable(f"{what} {path} cannot be read: it is not UTF-8 text {where}") from error
