"""
Logs: one line of JSON per event on standard error; on a terminal, one line for people.

Called by: every `__main__` (`configure`) and every module (`get_logger`). Rules: an event is a
constant sentence, what varies stands in its fields; secrets are never logged: the values of fields
whose name says token, password, secret, authorization or private key are struck out.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

_SECRET = re.compile(r"token|password|secret|authorization|private.?key|tls.?key", re.IGNORECASE)
_BEARER = re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]+")
_STRUCK = "(struck out)"
LEVELS = ("debug", "info", "warning", "error")


def configure(process: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging of this process. Raises ValueError for an unknown level."""
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} (expected one of {', '.join(LEVELS)})")
    stream = stream or sys.stderr
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _naming(process),
            strike_secrets,
            structlog.dev.ConsoleRenderer() if stream.isatty() else _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # Libraries (gunicorn, urllib3, grpc) log through the standard library: warnings and up.
    logging.basicConfig(
        level=max(number, logging.WARNING),
        stream=stream,
        format="%(name)s: %(message)s",
        force=True,
    )


def get_logger(**fields: object) -> FilteringBoundLogger:
    """A logger that adds these fields to each event."""
    logger: FilteringBoundLogger = structlog.get_logger(**fields)
    return logger


def strike_secrets(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of fields that are secret by name, and bearer tokens in any text."""
    for name, value in event.items():
        if name != "event" and _SECRET.search(name):
            event[name] = _STRUCK
        elif isinstance(value, str) and "earer" in value:
            event[name] = _BEARER.sub(rf"\1{_STRUCK}", value)
    return event


def _naming(process: str) -> Any:
    def add(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return add


def _render(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return orjson.dumps({**first, **event}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
