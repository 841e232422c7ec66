"""Files of pages are cut where the address space is. Faked: image files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.testing.imagefiles import LAZY, PAGE, PRESENT, entry, image, write
from nodeagent.images import windows
from nodeagent.images.folders import CRIU

HERE = LAZY | PRESENT
WINDOW = windows.SMALLEST
PAGES = WINDOW // PAGE


def cuts(folder):
    """By the name of the file, of an image that has these."""
    where = folder / CRIU
    where.mkdir(exist_ok=True)
    for file in folder.glob("*.img"):
        (where / file.name).write_bytes(file.read_bytes())
    found = windows.cuts(folder)
    return {path.removeprefix(f"{CRIU}/"): pieces for path, pieces in found.items()}


def rows(*of):
    """Of a map: (first page, how many)."""
    return [entry(first * PAGE, count) for first, count in of]


def test_a_page_more_changes_the_pieces_of_its_window_only(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, first in ((before, 3), (after, 4)):
        folder.mkdir()
        write(folder, rows((0, first), (10 * PAGES, 2 * PAGES), (99 * PAGES + 5, 2)), b"")
    ours, theirs = cuts(before)["pages-1.img"], cuts(after)["pages-1.img"]
    assert ours == (3 * PAGE, WINDOW, WINDOW, 2 * PAGE)
    assert theirs == (4 * PAGE, *ours[1:])


def test_rows_of_one_window_are_one_piece_and_a_row_over_a_border_is_two(tmp_path):
    write(tmp_path, rows((1, 1), (5, 2), (PAGES - 1, 2)), b"")
    assert cuts(tmp_path) == {"pages-1.img": (4 * PAGE, PAGE)}


def test_what_is_not_in_the_file_takes_nothing(tmp_path):
    image(tmp_path, (0, bytes(PAGE), HERE), (PAGE, bytes(PAGE), LAZY), (WINDOW, bytes(PAGE), HERE))
    assert cuts(tmp_path) == {"pages-1.img": (PAGE, PAGE)}


def test_many_windows_make_larger_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "MOST", 4)
    write(tmp_path, rows((0, 16 * PAGES)), b"")
    assert cuts(tmp_path)["pages-1.img"] == (4 * WINDOW,) * 4
    write(tmp_path, rows((0, 256 * PAGES)), b"")
    assert set(cuts(tmp_path)["pages-1.img"]) == {windows.LARGEST}


def test_each_process_has_its_own_and_a_file_of_two_maps_is_cut_as_any_other(tmp_path):
    write(tmp_path, rows((0, 1)), b"", 1)
    write(tmp_path, rows((7, 2)), b"", 2)
    assert cuts(tmp_path) == {"pages-1.img": (PAGE,), "pages-2.img": (2 * PAGE,)}
    (tmp_path / "pagemap-3.img").write_bytes((tmp_path / "pagemap-2.img").read_bytes())
    assert cuts(tmp_path) == {"pages-1.img": (PAGE,)}


@pytest.mark.parametrize("content", [b"", b"HEADHEAD", b"HEADHEAD\xff\xff\xff\xff"])
def test_what_is_no_map_is_cut_nowhere(tmp_path, content):
    (tmp_path / "pagemap-1.img").write_bytes(content)
    assert cuts(tmp_path) == {}


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 500)), max_size=30))
def test_pieces_are_all_of_the_file_and_none_is_too_large(tmp_path_factory, runs):
    folder = tmp_path_factory.mktemp("image")
    write(folder, rows(*runs), b"")
    pieces = cuts(folder)["pages-1.img"]
    assert sum(pieces) == PAGE * sum(count for _, count in runs)
    assert all(0 < piece <= windows.LARGEST for piece in pieces)
