"""Logs are lines of JSON without secrets."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from kybernate.runtime import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields_first_things_first(
    stream: io.StringIO,
) -> None:
    logs.configure("extender", stream=stream)
    logs.get_logger(node="node-a").info("placed", seconds=4.1, path=io)
    (line,) = lines(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line["process"] == "extender"
    assert (line["event"], line["node"], line["seconds"]) == ("placed", "node-a", 4.1)


def test_what_is_below_the_level_is_not_said(stream: io.StringIO) -> None:
    logs.configure("extender", "warning", stream)
    logs.get_logger().info("quiet")
    logs.get_logger().warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_a_logger_made_before_the_configuration_follows_it(stream: io.StringIO) -> None:
    early = structlog.get_logger(resource="pods")
    logs.configure("extender", stream=stream)
    early.info("hello")
    assert lines(stream)[0]["resource"] == "pods"


def test_a_traceback_is_a_field(stream: io.StringIO) -> None:
    logs.configure("extender", stream=stream)
    try:
        raise RuntimeError("why")
    except RuntimeError:
        logs.get_logger().exception("failed")
    assert "RuntimeError: why" in str(lines(stream)[0]["exception"])


@pytest.mark.parametrize(
    "name", ["token", "bearer_token", "password", "clientSecret", "authorization", "private_key"]
)
def test_secrets_are_struck_out_by_name(stream: io.StringIO, name: str) -> None:
    logs.configure("extender", stream=stream)
    logs.get_logger().info("told", **{name: "hunter2"})
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0][name] == "(struck out)"


def test_bearer_tokens_are_struck_out_of_texts(stream: io.StringIO) -> None:
    logs.configure("extender", stream=stream)
    logs.get_logger().info("asked", headers="Authorization: Bearer abc.def-1 next")
    assert "abc.def" not in stream.getvalue()
    assert "next" in stream.getvalue()


def test_an_unknown_level_is_refused_with_the_accepted_ones(stream: io.StringIO) -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        logs.configure("extender", "loud", stream)


def test_libraries_speak_up_from_warnings_on(stream: io.StringIO) -> None:
    logs.configure("extender", stream=stream)
    logging.getLogger("urllib3").info("no")
    logging.getLogger("urllib3").warning("yes")
    assert "yes" in stream.getvalue()
    assert "no\n" not in stream.getvalue()
