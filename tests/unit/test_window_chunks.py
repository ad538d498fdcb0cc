"""Chunks: lossless to the bit, small where little changes, and damage is noticed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.window.blocks import ABSENT_BITS, STALE_BITS
from sixfbd.window.chunks import BAND, ChunkDamagedError, decode, encode

EVERY_FIVE_SECONDS = 1_764_000_000_000 + 5000 * np.arange(120)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint64) == b.view(np.uint64)).all())


bit_patterns = st.one_of(
    st.floats(width=64).map(lambda value: int(np.float64(value).view(np.uint64))),
    st.integers(-(10**6), 10**6).map(lambda value: int(np.float64(value / 100).view(np.uint64))),
    st.integers(0, 2**64 - 1),
    st.sampled_from([STALE_BITS, ABSENT_BITS, 0x8000000000000000]),
)


@settings(deadline=None)  # a machine that is busy takes longer
@given(st.data())
def test_a_chunk_comes_back_as_it_was_to_the_bit(data):
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    steps = data.draw(st.lists(st.integers(1, 10**9), min_size=rows, max_size=rows))
    t_ms = np.cumsum(np.array(steps, dtype=np.int64))
    cells = data.draw(st.lists(bit_patterns, min_size=rows * columns, max_size=rows * columns))
    v = np.array(cells, dtype=np.uint64).view(np.float64).reshape(rows, columns)
    back_t, back_v = decode(encode(t_ms, v))
    assert (back_t == t_ms).all()
    assert same(back_v, v)


def test_a_whole_band_of_mixed_columns_comes_back():
    rng = np.random.default_rng(6)
    v = np.cumsum(rng.normal(0, 1, (120, BAND)), axis=0)
    v[:, ::2] = np.round(v[:, ::2], 1)
    v[:, 1] = -0.0
    v[3:, 4] = np.array([STALE_BITS] + [ABSENT_BITS] * 116, dtype=np.uint64).view(np.float64)
    v[0, 5], v[7, 6] = np.nan, -np.inf
    back_t, back_v = decode(encode(EVERY_FIVE_SECONDS, v))
    assert (back_t == EVERY_FIVE_SECONDS).all()
    assert same(back_v, v)


@pytest.mark.parametrize(
    "values",
    [
        lambda rng: np.round(50 + np.cumsum(rng.normal(0, 0.3, (120, 20)), axis=0), 1),
        lambda rng: np.rint(4e9 + np.cumsum(rng.normal(0, 1e5, (120, 20)), axis=0)) // 4096 * 4096,
        lambda rng: 1e7 + np.cumsum(rng.poisson(300, (120, 20)), axis=0),
    ],
    ids=["percentages", "bytes", "counters"],
)
def test_slowly_changing_gauges_and_counters_cost_at_most_three_bytes_a_sample(values):
    rng = np.random.default_rng(6)
    v = values(rng).astype(np.float64)
    t_ms = EVERY_FIVE_SECONDS + rng.integers(-3, 4, 120)
    assert len(encode(t_ms, v)) <= 3 * v.size


@settings(deadline=None)  # as above
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_byte_that_was_changed_is_noticed(position, flip):
    v = np.round(np.random.default_rng(6).normal(0, 1, (30, 3)), 2)
    blob = bytearray(encode(EVERY_FIVE_SECONDS[:30], v))
    blob[position % len(blob)] ^= flip
    try:
        back_t, back_v = decode(bytes(blob))
    except ChunkDamagedError:
        return
    assert (back_t == EVERY_FIVE_SECONDS[:30]).all()  # an unused bit of the header
    assert same(back_v, v)


@pytest.mark.parametrize("blob", [b"", b"\x01\x00", bytes(40)])
def test_what_is_no_chunk_is_refused(blob):
    with pytest.raises(ChunkDamagedError):
        decode(blob)
