"""What is in force when something bad is offered, and after a restart."""

from pathlib import Path

import pytest

from controller.bundle_app import bundle_app
from controller.bundles import BundleRefused, OpaUnusable
from controller.publication import Publication
from kybernate.api.opa_config import BUNDLE_PATH
from policies import shipped

FILES = shipped.files()
BAD = {**FILES, "data/classes.json": "{"}
CHANGED = {**FILES, "data/turns.json": FILES["data/turns.json"].replace("30", "31")}


@pytest.fixture
def publication(opa_program: Path, tmp_path: Path) -> Publication:
    """Nothing published yet."""
    return Publication(opa=opa_program, folder=tmp_path / "kept")


def test_a_refused_offer_changes_nothing(publication: Publication) -> None:
    good = publication.offer(FILES)
    with pytest.raises(BundleRefused):
        publication.offer(BAD)
    assert publication.current == good
    assert publication.refused is not None
    assert publication.refused.reasons


def test_a_good_offer_ends_the_refusal(publication: Publication) -> None:
    good = publication.offer(FILES)
    with pytest.raises(BundleRefused):
        publication.offer(BAD)
    assert publication.offer(FILES) == good
    assert publication.refused is None


def test_a_changed_offer_is_in_force_at_once(publication: Publication) -> None:
    old = publication.offer(FILES)
    new = publication.offer(CHANGED)
    assert publication.current == new
    assert new.revision != old.revision


def test_the_last_good_one_outlives_a_restart(
    publication: Publication, opa_program: Path, tmp_path: Path
) -> None:
    good = publication.offer(FILES)
    with pytest.raises(BundleRefused):
        publication.offer(BAD)
    assert Publication(opa=opa_program, folder=tmp_path / "kept").current == good


def test_the_same_offer_costs_nothing(publication: Publication, tmp_path: Path) -> None:
    good = publication.offer(FILES)
    idle = Publication(opa=tmp_path / "no-such-opa", folder=tmp_path / "kept")
    assert idle.offer(FILES) == good
    with pytest.raises(OpaUnusable):
        idle.offer(CHANGED)
    assert idle.current == good


@pytest.mark.parametrize(
    "keep", [pytest.param(0, id="empty"), pytest.param(100, id="cut"), pytest.param(-1, id="short")]
)
def test_half_a_bundle_is_put_aside(
    publication: Publication, opa_program: Path, tmp_path: Path, keep: int
) -> None:
    publication.offer(FILES)
    kept = tmp_path / "kept" / "kyb.tar.gz"
    kept.write_bytes(kept.read_bytes()[:keep])
    again = Publication(opa=opa_program, folder=tmp_path / "kept")
    assert again.current is None
    assert kept.with_name("kyb.tar.gz.unreadable").exists()
    assert again.offer(FILES).content


def _get(
    publication: Publication, path: str = f"/{BUNDLE_PATH}", **environ: str
) -> tuple[str, dict[str, str], bytes]:
    said: list[tuple[str, list[tuple[str, str]]]] = []
    asked = {"REQUEST_METHOD": "GET", "PATH_INFO": path, **environ}
    body = b"".join(bundle_app(publication)(asked, lambda *start: said.append(start)))
    status, headers = said[0]
    return status, dict(headers), body


def test_the_bundle_is_served_with_its_revision(publication: Publication) -> None:
    good = publication.offer(FILES)
    status, headers, body = _get(publication)
    assert (status, body) == ("200 OK", good.content)
    assert headers["ETag"] == f'"{good.revision}"'
    assert headers["Content-Length"] == str(len(good.content))


def test_whoever_has_it_already_is_told_so(publication: Publication) -> None:
    good = publication.offer(FILES)
    tag = f'"{good.revision}"'
    status, headers, body = _get(publication, HTTP_IF_NONE_MATCH=tag)
    assert (status, headers["ETag"], body) == ("304 Not Modified", tag, b"")
    publication.offer(CHANGED)
    assert _get(publication, HTTP_IF_NONE_MATCH=tag)[0] == "200 OK"


def test_before_anything_was_published_it_may_be_asked_again(publication: Publication) -> None:
    status, headers, _ = _get(publication)
    assert (status, headers["Retry-After"]) == ("503 Service Unavailable", "1")


def test_nothing_else_is_served(publication: Publication) -> None:
    publication.offer(FILES)
    assert _get(publication, "/bundles/../etc/passwd")[0] == "404 Not Found"
    assert _get(publication, REQUEST_METHOD="POST")[0] == "405 Method Not Allowed"
    status, headers, body = _get(publication, REQUEST_METHOD="HEAD")
    assert (status, body) == ("200 OK", b"")
    assert int(headers["Content-Length"]) > 0
