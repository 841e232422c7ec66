"""In which batches segments go from guest to worker. Pure."""

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.mechanisms.guestwire import BATCH
from nodeagent.mechanisms.handing import spans_back, spans_out

MIB = 2**20


def covered(spans):
    """The segments of all batches, in order."""
    return [number for first, count in spans for number in range(first, first + count)]


@given(st.integers(0, 2000))
def test_every_segment_goes_out_once_and_in_order(segments):
    spans = list(spans_out(segments))
    assert covered(spans) == list(range(segments))
    assert all(0 < count <= BATCH for _, count in spans)


@given(st.lists(st.sampled_from([2, 20, 64, 256, 40_000]), max_size=300))
def test_every_segment_comes_back_once_and_in_order(mib):
    spans = list(spans_back([size * MIB for size in mib]))
    assert covered(spans) == list(range(len(mib)))
    assert all(0 < count <= BATCH for _, count in spans)


def test_the_first_batch_back_is_small_whatever_the_segments():
    assert next(spans_back([256 * MIB] * 100)) == (0, 1)
    assert next(spans_back([64 * MIB] * 100)) == (0, 2)
    assert next(spans_back([20 * MIB] * 100)) == (0, 4)
    assert next(spans_back([2 * MIB] * 100)) == (0, 40)
