"""Whoever reads is never led astray: every link leads somewhere, and every page is led to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _links(page: Path) -> list[tuple[Path, str]]:
    """Where each link of the page leads: a file, and an anchor in it or nothing."""
    found = [one.partition("#") for one in LINK.findall(FENCED.sub("", page.read_text()))]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in found]


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    words = [re.sub(r"[^\w\- ]", "", text.lower()) for text in HEADING.findall(page.read_text())]
    return {text.strip().replace(" ", "-") for text in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target, anchor in _links(page):
        assert target.exists(), target
        assert not anchor or anchor in _anchors(target), f"{target}#{anchor}"


def test_every_page_is_reached_from_the_readme() -> None:
    """Decision records are numbered; their folder is their list."""
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            ahead += [target for target, _ in _links(page) if target.suffix == ".md"]
    wanted = {page for page in PAGES if page.parent != ROOT and page.parent.name != "decisions"}
    assert wanted <= reached, f"no link leads to {sorted(map(str, wanted - reached))}"
