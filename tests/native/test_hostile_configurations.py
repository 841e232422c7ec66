"""
kybernate-runc, built with the compiler's checks of every access, on any config.json.

Oracle: Python's own JSON. What is real: see conftest.
"""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def judged(box, checked_runtime):
    """What became of a config.json: "held", "runc" alone, or the words of the refusal."""
    box.environment["ASAN_OPTIONS"] = "exitcode=99:detect_leaks=0"

    def judge(config):
        box.call("delete", box.id, program=box.folder / "runc")
        box.clear()
        box.agent.calls.clear()
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        done = box.create(text, program=checked_runtime)
        assert done.returncode in (0, 1), done.stderr
        if done.returncode:
            assert box.calls == []
            return done.stderr
        return "held" if box.mark.exists() else "runc"

    return judge


@FEW
@given(st.dictionaries(TEXT, ANY, max_size=5), st.booleans())
def test_whatever_else_is_in_it_a_seat_is_found(box, judged, noise, escaped):
    config = {**noise, **box.config()}
    config["process"] = {**config["process"], "noise": noise, "env": ["A=1", "KYB_GPU_SEAT=G0/1"]}
    text = json.dumps(config, ensure_ascii=escaped, indent=1 if escaped else None)
    assert judged(text.encode("utf-8", "surrogatepass")) == "held"


@FEW
@given(st.dictionaries(TEXT, ANY, max_size=5))
def test_any_other_object_is_runcs(judged, config):
    assert judged(config) == "runc"


@FEW
@given(st.data())
def test_a_changed_byte_never_makes_it_go_astray(box, judged, data):
    text = bytearray(json.dumps(box.config()).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    answer = judged(bytes(text))
    try:
        json.loads(bytes(text), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return  # runc's own reader forgives other things than Python's; refused or runc's to judge
    assert answer in ("held", "runc") or "cannot be told" in answer


@FEW
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_runcs(judged, text):
    answer = judged(text)
    assert answer == "runc" or "cannot be told" in answer


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="torn"),
        pytest.param(b'{"a":1} x', id="something-behind"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="deep"),
        pytest.param(b'{"a":"\x01"}', id="control-character"),
        pytest.param(b'{"a":"\\u12"}', id="short-escape"),
        pytest.param(b'{"a":01}', id="leading-zero"),
        pytest.param(b'{"a":1.}', id="no-fraction"),
        pytest.param(b'{"a":1e}', id="no-exponent"),
        pytest.param(b'{"a":-}', id="a-sign"),
        pytest.param(b'{"a":nul}', id="half-a-word"),
        pytest.param(b'{"a":1,}', id="a-comma-too-many"),
        pytest.param(b'{"a" 1}', id="no-colon"),
        pytest.param(b"{a:1}", id="no-quotes"),
    ],
)
def test_what_is_no_json_is_refused_in_words(judged, text):
    assert "whether it is for a seat cannot be told" in judged(text)


def test_names_may_be_escaped_and_the_last_of_two_counts(box, judged):
    config = json.dumps(box.config())
    seat = config.replace("KYB_GPU_SEAT", "\\u004bYB_GPU_SEAT").replace("env", "\\u0065nv")
    assert judged(seat.encode()) == "held"
    twice = config[:-1] + ', "annotations": {}}'
    assert judged(twice.encode()) == "runc"


@pytest.mark.parametrize("uid", ["", "x" * 300, "a\0b", None])
def test_a_pod_without_a_usable_name_is_refused_in_words(box, judged, uid):
    assert "cannot be told" in judged(box.config(sandbox_uid=uid))
