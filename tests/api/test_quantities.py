"""Sizes as Kubernetes writes them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybernate.api.quantity import format_bytes, parse_bytes, parse_count, readable_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("+5", 5),
        ("007", 7),
        ("1.", 1),
        (".5Ki", 512),
        ("1.5Gi", 3 * 2**29),
        ("40Gi", 40 * 2**30),
        ("1Ki", 2**10),
        ("1Mi", 2**20),
        ("1Ti", 2**40),
        ("1Pi", 2**50),
        ("1Ei", 2**60),
        ("1k", 10**3),
        ("1M", 10**6),
        ("80G", 80 * 10**9),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1E", 10**18),
        ("2e9", 2 * 10**9),
        ("2E9", 2 * 10**9),
        ("1.5e+3", 1500),
        ("1500e-3", 2),
        ("1500m", 2),
        ("1u", 1),
        ("1n", 1),
        ("1e-99", 1),
        ("9223372036854775807", 2**63 - 1),
        (" 40Gi ", 40 * 2**30),
    ],
)
def test_every_suffix_is_read_and_parts_of_a_byte_are_rounded_up(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-0",
        "40GB",
        "40gi",
        "40 Gi",
        "Gi",
        "1e",
        "e3",
        "1Kie3",
        "1K",
        "0x10",
        "1_000",
        "NaN",
        "inf",
        "٤",
        "8Ei",
        "1e19",
        "1e9999",
        "1e999",
        "9" * 41,
        "1" + "0" * 10_000,
    ],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="like 40Gi"):
        parse_bytes(text)


def test_numbers_are_taken_as_bytes() -> None:
    assert parse_bytes(1024) == 1024


@given(st.integers(0, 2**63 - 1))
def test_a_formatted_size_reads_back_the_same(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == size


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["Ki", "Mi", "Gi"]))
def test_fractions_are_exact(whole: int, part: int, suffix: str) -> None:
    unit = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[suffix]
    text = f"{whole}.{part:06d}"
    exact = Fraction(text) * unit
    assert parse_bytes(text + suffix) == -(-exact.numerator // exact.denominator)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1000, "1000"), (1024, "1Ki"), (3 * 2**29, "1536Mi")]
)
def test_the_shortest_exact_form_is_written(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (40 * 2**30, "40 GiB"), (1.5 * 2**20, "1.5 MiB")],
)
def test_people_read_one_decimal_at_most(size: float, text: str) -> None:
    assert readable_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("0", 0), ("2k", 2000), ("1000m", 1), (4, 4)]
)
def test_counts_are_whole(text: str | int, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["500m", "1.5", "-1", "one", "1e30"])
def test_parts_of_things_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"whole number|like 40Gi"):
        parse_count(text)
