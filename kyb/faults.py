"""How every command says what went wrong: a sentence on stderr, never a traceback."""

from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

_errors = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(text: str) -> NoReturn:
    """Say why and end with status 1."""
    say(text)
    raise typer.Exit(1)


def say(fault: Exception | str) -> None:
    """One fault; its text is printed as it is, brackets and all."""
    _errors.print("[red]kyb:[/red]", escape(str(fault)))
