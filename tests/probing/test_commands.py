"""Probes and hooks as `kyb-probe` commands: what goes in comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api import probes
from kybernate.api.errors import Malformed
from kybernate.model.probing import PROBES, Asked, Exec, Grpc, HttpGet, Kind, Sleep, TcpSocket

_TEXT = st.text(max_size=40)
_PORT = st.integers(1, 65535)
_NUMBER = st.integers(0, 100_000)
_PATHS = _TEXT.map(lambda text: "/" + text)
_ACTIONS = st.one_of(
    st.builds(
        HttpGet,
        port=_PORT,
        path=_PATHS,
        tls=st.booleans(),
        host=_TEXT,
        headers=st.lists(st.tuples(_TEXT, _TEXT), max_size=3).map(tuple),
    ),
    st.builds(TcpSocket, port=_PORT, host=_TEXT),
    st.builds(Grpc, port=_PORT, service=_TEXT),
    st.builds(Exec, command=st.lists(_TEXT, min_size=1).filter(lambda c: c[0] != "kyb-probe")
              .map(tuple)),
)  # fmt: skip
_PROBES = st.builds(
    Asked,
    kind=st.sampled_from(PROBES),
    action=_ACTIONS,
    delay=_NUMBER,
    period=_NUMBER,
    timeout=_NUMBER,
    failures=_NUMBER,
    startup=_NUMBER,
)
_HOOKS = st.builds(
    Asked,
    kind=st.just(Kind.PRESTOP),
    action=st.none() | _ACTIONS | st.builds(Sleep, seconds=_NUMBER),
    grace=st.none() | _NUMBER,
    seal=st.booleans(),
)


@given(asked=_PROBES | _HOOKS)
def test_what_was_asked_for_comes_back_whole(asked):
    assert probes.read_command(probes.write_command(asked)) == asked


def test_the_form_is_the_one_that_is_documented():
    action = HttpGet(port=8080, path="/healthz", headers=(("X", "y"),))
    asked = Asked(kind=Kind.LIVENESS, action=action, delay=5, startup=300)
    assert probes.write_command(asked) == [
        "kyb-probe",
        "liveness",
        '{"httpGet":{"port":8080,"path":"/healthz","httpHeaders":[{"name":"X","value":"y"}]},'
        '"delay":5,"period":10,"timeout":1,"failures":3,"startup":300}',
    ]
    own = Asked(kind=Kind.PRESTOP, action=Exec(command=("sh", "-c", "x")), grace=30, seal=True)
    assert probes.write_command(own) == [
        "kyb-probe", "prestop", '{"grace":30,"seal":true}', "--", "sh", "-c", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "named"),
    [
        pytest.param(["kyb-probe"], "kind", id="nothing-else"),
        pytest.param(["kyb-probe", "aliveness", "{}"], "kind", id="another-kind"),
        pytest.param(["kyb-probe", "liveness", "{}", "ls"], "command", id="no-dashes"),
        pytest.param(["kyb-probe", "liveness", "{}", "--"], "command", id="nothing-behind"),
        pytest.param(["kyb-probe", "liveness", "{}", "--", "kyb-probe"], "command", id="nested"),
        pytest.param(["kyb-probe", "liveness", "{"], "spec", id="not-json"),
        pytest.param(["kyb-probe", "liveness", "[]"], "spec", id="no-object"),
        pytest.param(["kyb-probe", "liveness", '{"x":1}'], "x", id="unknown-member"),
        pytest.param(["kyb-probe", "liveness", '{"period":-1}'], "period", id="negative"),
        pytest.param(["kyb-probe", "liveness", '{"period":true}'], "period", id="no-number"),
        pytest.param(["kyb-probe", "liveness", '{"tcpSocket":{"port":0}}'], "port", id="no-port"),
        pytest.param(
            ["kyb-probe", "liveness", '{"httpGet":{"port":1,"scheme":"ftp"}}'], "scheme",
            id="another-scheme",
        ),
    ],
)  # fmt: skip
def test_what_we_never_wrote_is_refused_by_name(command, named):
    with pytest.raises(Malformed, match=named):
        probes.read_command(command)


@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        probes.read_spec(Kind.LIVENESS, text)
    except Malformed:
        return
