"""`kyb checkpoint inspect` shows what runs in a checkpoint, of either format, and no secret.

Real: an agent's store on disk, a store's folder. Images are made field by field, as CRIU's are.
"""

import json
import os
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from kyb.checkpoints import masking
from kybernate.artifacts import criu, processes
from kybernate.artifacts.criu import Message, NotAnImage
from kybernate.testing.artifacts import FACTS
from nodeagent.checkpoints.signing import Keys
from nodeagent.checkpoints.store import Store

Kyb = Callable[..., Result]
HEAD = b"\x19\x43\x56\x54\x00\x00\x00\x00"
ARGUMENTS = b"python\0serve.py\0--token\0hunter2\0"
ENVIRONMENT = b"PATH=/usr/bin\0HF_TOKEN=abc\0URL=http://u:pw@h/\0NAME=\x1b[31mred\0"
STACK = 0x7FFD00000000


def message(**fields: object) -> bytes:
    """`n3=7` is field 3; bytes, numbers, and lists of them."""
    made = Message()
    for name, value in fields.items():
        made.put(int(name[1:]), *(value if isinstance(value, list) else [value]))  # type: ignore[list-item]
    return made.raw()


def image(*entries: bytes) -> bytes:
    return criu.joined(HEAD, entries)


def files() -> dict[str, bytes]:
    """Two processes; the first has its words in the second of two runs of pages."""
    vma = message(n1=0x400000, n2=0x402000, n3=0, n4=9, n5=5, n6=2)
    heap = message(n1=0x1000000, n2=0x1003000, n5=3, n6=0x22)
    words = ARGUMENTS + ENVIRONMENT
    at = STACK + 100
    split = at + len(ARGUMENTS)
    places = {"n8": at, "n9": split, "n10": split, "n11": at + len(words)}
    page = (bytes(100) + words).ljust(4096, b"\0")
    return {
        "pstree.img": image(message(n1=1, n2=0, n5=[1, 4, 5]), message(n1=7, n2=1, n5=[7])),
        "core-1.img": image(message(n1=1, n3=message(n6=b"python"))),
        "ids-1.img": image(message(n1=1, n2=3)),
        "core-7.img": image(message(n1=1, n3=message(n1=2, n6=b"dead"))),
        "mm-1.img": image(message(**places, n12=9, n14=[vma, heap])),
        "fdinfo-3.img": image(message(n1=9, n3=1, n4=0), message(n1=10, n3=5, n4=4)),
        "files.img": image(
            message(n1=1, n2=9, n3=message(n1=9, n6=b"/usr/bin/python3")),
            message(n1=5, n2=10, n16=message(n11=b"\0abstract")),
        ),
        "pagemap-1.img": image(
            message(n1=1), message(n1=0x1000000, n2=2), message(n1=STACK, n2=1, n4=4)
        ),
        "pages-1.img": b"\xaa" * 8192 + page,
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "wrapping").mkdir()
    (tmp_path / "wrapping/wrapping.key").write_text(b64encode(os.urandom(32)).decode())
    keys = Keys.own(tmp_path / "keys", tmp_path / "wrapping")
    store = Store(tmp_path / "agent", keys, 2**30, spare=0)
    with store.draft("default", "llama-0") as draft:
        for name, body in files().items():
            draft.write(f"image/criu/{name}", [body])
        draft.seal(FACTS)
    return tmp_path


@pytest.fixture(params=["agent", "store"])
def inspect(request: pytest.FixtureRequest, kyb: Kyb, place: Path) -> Callable[..., str]:
    keys = ["--keys", str(place / "keys")]
    more = ["--wrapping", str(place / "wrapping")]
    if request.param == "store":
        source = ["--from", str(place / "agent"), "--to", str(place / "store")]
        assert kyb("checkpoint", "export", "default/llama-0", *source, *keys, *more).exit_code == 0

    def run(*words: str) -> str:
        where = ["--in", str(place / request.param), *keys, *more]
        answer = kyb("checkpoint", "inspect", "default/llama-0", *where, *words)
        assert answer.exit_code == 0, answer.output + answer.stderr
        return answer.output

    return run


def test_processes_are_shown(inspect: Callable[..., str]) -> None:
    said = inspect()
    rows = [line.split() for line in said.splitlines()]
    assert ["1", "0", "3", "python", "/usr/bin/python3", "12288", "B", "2"] in rows
    assert ["7", "1", "1", "dead", "0", "B", "0"] in rows
    assert "hunter2" not in said
    assert "PATH" not in said


def test_maps_and_open_files_are_shown_when_asked_for(inspect: Callable[..., str]) -> None:
    rows = [line.split() for line in inspect("--maps", "--open").splitlines()]
    assert ["1", "400000", "402000", "r-xp", "8192", "B", "/usr/bin/python3"] in rows
    assert ["1", "1000000", "1003000", "rw-p", "12288", "B"] in rows
    assert ["1", "0", "file", "/usr/bin/python3"] in rows
    assert ["1", "4", "unix", "socket", "\\x00abstract".replace("\\x00", "@")] in rows


def test_the_environment_is_shown_without_secrets(inspect: Callable[..., str]) -> None:
    said = inspect("--environment")
    for secret in ("hunter2", "abc", "pw@h", "\x1b"):
        assert secret not in said.replace("abstract", "")
    assert "python serve.py --token (masked)" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["1", "PATH", "/usr/bin"] in rows
    assert ["1", "HF_TOKEN", "(masked)"] in rows
    assert ["1", "NAME", "\\x1b[31mred"] in rows


def test_as_json(inspect: Callable[..., str]) -> None:
    shown = json.loads(inspect("--environment", "--maps", "--open", "-o", "json"))
    first, second = shown["processes"]
    assert first["environment"]["PATH"] == "/usr/bin"
    assert first["environment"]["URL"] == "(masked)"
    assert first["arguments"][-1] == "(masked)"
    assert first["open"][0]["path"] == "/usr/bin/python3"
    assert [row["access"] for row in first["maps"]] == ["r-xp", "rw-p"]
    assert second["environment"] == {}
    assert {"path": "image/criu/pstree.img", "size": len(files()["pstree.img"])} in shown["files"]


def test_of_a_store_processes_need_a_wrapping_key(kyb: Kyb, place: Path) -> None:
    keys = ["--keys", str(place / "keys")]
    source = ["--from", str(place / "agent"), "--to", str(place / "store")]
    kyb("checkpoint", "export", "default/llama-0", *source, *keys,
        "--wrapping", str(place / "wrapping"))  # fmt: skip
    answer = kyb("checkpoint", "inspect", "default/llama-0", "--in", str(place / "store"), *keys)
    assert answer.exit_code == 0
    assert "--wrapping shows them" in answer.output


def test_an_altered_file_of_pages_is_refused(kyb: Kyb, place: Path) -> None:
    [pack] = (place / "agent").glob("domains/*/packs/*/*")
    whole = pack.read_bytes()
    where = ["--in", str(place / "agent"), "--keys", str(place / "keys"), "--environment",
             "--wrapping", str(place / "wrapping")]  # fmt: skip
    assert "usr/bin" in kyb("checkpoint", "inspect", "default/llama-0", *where).output
    pack.write_bytes(bytes(one ^ 1 for one in whole))
    answer = kyb("checkpoint", "inspect", "default/llama-0", *where)
    assert answer.exit_code != 0
    assert "usr/bin" not in answer.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("pstree.img", HEAD + b"\xff\xff\xff\xff", "pstree.img is truncated"),
        ("core-1.img", None, "there is no core-1.img"),
        ("core-1.img", HEAD, "core-1.img is empty"),
        ("mm-1.img", image(message(n10=0, n11=2**62)), "bytes of text"),
        ("pagemap-1.img", image(message(n1=1), *[message(n1=STACK, n2=1)] * 2), "not in order"),
    ],
)
def test_a_hostile_image_is_refused_in_words(name: str, content: bytes | None, said: str) -> None:
    hostile = files()
    if content is None:
        del hostile[name]
    else:
        hostile[name] = content
    with pytest.raises(NotAnImage, match=said):
        _look(hostile)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(set(files()) - {"pages-1.img"})),
    st.integers(0, 400),
    st.binary(min_size=1, max_size=12),
)
def test_whatever_is_altered_ends_in_a_value_or_in_words(name: str, at: int, put: bytes) -> None:
    hostile = files()
    body = bytearray(hostile[name])
    at = min(at, len(body))
    body[at : at + len(put)] = put
    hostile[name] = bytes(body)
    with suppress(NotAnImage):
        _look(hostile)


def _look(image_files: dict[str, bytes]) -> None:
    pages = image_files.get("pages-1.img", b"")
    for one in processes.processes(image_files):
        if one.environment != (0, 0):
            for place in (one.arguments, one.environment):
                processes.texts(
                    image_files, one.pid, place, lambda _, at, size: pages[at : at + size]
                )


@pytest.mark.parametrize(
    "secret",
    [
        "DB_PASSWORD=x", "AWS_SECRET_ACCESS_KEY=x", "HF_TOKEN=x", "MY_PAT=x", "SIGNING=x",
        "A=https://user:pass@host/", "A=eyJhbGciOiJIUzI1NiJ9.e30.x", "A=AKIAIOSFODNN7EXAMPLE",
        "A=ghp_abcdefgh12345678", "A=sk-abcdefgh12", "A=3f2a9c0d1e8b7a6f5c4d3e2b",
        "A=host=db password=x", "A=-----BEGIN PRIVATE KEY-----", "A=postgres://x?sslpassword=y",
    ],
)  # fmt: skip
def test_what_may_be_a_secret_is_masked(secret: str) -> None:
    assert masking.variable(secret)[1] == masking.MASKED


@pytest.mark.parametrize(
    "plain",
    ["PATH=/usr/local/cuda/bin:/usr/bin", "LANG=C.UTF-8", "CUDA_VERSION=12.8.1", "HOME=/root",
     "PYTHONUNBUFFERED=1", "KUBERNETES_SERVICE_HOST=10.0.0.1", "MODEL=meta/Llama-3.1-8B", "A="],
)  # fmt: skip
def test_what_is_none_is_shown(plain: str) -> None:
    name, _, value = plain.partition("=")
    assert masking.variable(plain) == (name, value)


def test_arguments_are_masked_by_their_flags() -> None:
    words = ["serve", "--api-key=x", "--password", "y", "--port", "80", "--token", "--verbose"]
    assert list(masking.arguments(words)) == [
        "serve", "--api-key=(masked)", "--password", "(masked)", "--port", "80", "--token",
        "--verbose",
    ]  # fmt: skip
