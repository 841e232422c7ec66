"""
Which of a program's words may be shown, and what stands for the others. Pure.

Called by: `inspecting`. Rule: what may be a secret is masked, by its name or by how it looks; a
word too many is masked rather than one too few.
"""

import re
from collections.abc import Iterator, Sequence

MASKED = "(masked)"
_NAMES = re.compile(
    r"pass|pwd|secret|token|key|cred|auth|cookie|session|private|salt|sign|cert|dsn|bearer|jwt"
    r"|(?<![a-z])(?:pat|pin|otp|sas)(?![a-z])",
    re.IGNORECASE,
)
_LOOKS = re.compile(
    r"-----BEGIN|://[^/\s:@]*:[^/\s@]+@|\beyJ[A-Za-z0-9_-]{8}|\b(?:AKIA|ASIA)[A-Z0-9]{8}"
    r"|\b(?:sk|pk|rk|hf|gh[opsu]|glpat|xox[abprs]|npm|pypi)[-_][A-Za-z0-9_-]{8}"
    r"|(?:[?&;\s]|^)[^=\s]*(?:pass|pwd|secret|token|key|sig)[^=\s]*=",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9+_=-]{20,}")


def variable(text: str) -> tuple[str, str]:
    """Name and value of `NAME=VALUE`, the value masked where it may be a secret."""
    name, equals, value = text.partition("=")
    if not equals:
        return printable(word(text)), ""
    hidden = _NAMES.search(name) or _is_secret(value)
    return printable(name), MASKED if hidden and value else printable(value)


def arguments(words: Sequence[str]) -> Iterator[str]:
    """Of a command line: `--token X`, `--token=X`, and what looks like a secret by itself."""
    named = False
    for one in words:
        flag, equals, value = one.partition("=")
        if equals and flag.startswith("-") and (_NAMES.search(flag) or _is_secret(value)):
            yield f"{printable(flag)}={MASKED}"
        elif named and not one.startswith("-"):
            yield MASKED
        else:
            yield printable(word(one))
        named = one.startswith("-") and not equals and bool(_NAMES.search(one))


def word(text: str) -> str:
    """A word that has no name."""
    return MASKED if _is_secret(text) else text


def printable(text: str) -> str:
    """A stranger's text as it may stand at a terminal."""
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)


def _is_secret(text: str) -> bool:
    """By known forms, or a long word of letters and digits mixed, as keys are made of."""
    return bool(_LOOKS.search(text)) or any(map(_is_mixed, _WORD.findall(text)))


def _is_mixed(found: str) -> bool:
    return any(map(str.isdigit, found)) and any(map(str.isalpha, found))
