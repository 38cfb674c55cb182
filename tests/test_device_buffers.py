"""Where a run's arrays lie, and how many results it makes: plain arithmetic."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picme_rt import plans, tensors
from picme_rt.device_buffers import ALIGNMENT, Sizes, bucket, layout, padded, shares

TABLES = tensors.tables(
    size=64, primitives=6, latent=128, features=[(48, 16, 16), (96, 8, 8)], z_m=True, crops=2
)
TABLES = TABLES._replace(decoder=plans.decoder_table(TABLES.decoder))
SIDES = st.integers(1, 300)


@given(st.integers(1, 9), st.integers(1, 20), SIDES, SIDES, st.integers(1, 99_999))
def test_buffers_overlap_with_nothing_and_begin_where_they_may(batch, k, height, width, packed):
    found = layout(TABLES, Sizes(batch, k, height, width, packed, 32))
    ends = 0
    for one in found.buffers.values():
        assert one.offset % ALIGNMENT == 0
        assert one.offset >= ends
        ends = one.offset + one.size
    assert ends <= found.size < ends + ALIGNMENT


def test_every_tensor_of_both_graphs_has_its_buffer():
    buffers = layout(TABLES, Sizes(2, 6, 100, 90, 4096, 32)).buffers
    letters = {"B": 2, "k": 6}
    for tensor in itertools.chain(*TABLES.encoder, *TABLES.decoder):
        shape = tuple(letters[n] if isinstance(n, str) else n for n in tensor.axes)
        assert buffers[tensor.name].shape == shape, tensor.name
        assert buffers[tensor.name].dtype == "float32"
    assert buffers["scratch"].shape == (2, 6, 3, 32, 32 + 64)
    assert buffers["out"].size == 2 * 6 * 100 * 90 * 3
    assert buffers["seeds"].size == 16


def test_each_way_is_one_stretch():
    found = layout(TABLES, Sizes(2, 6, 100, 90, 4096, 32))
    there = {name for name, one in found.buffers.items() if one.offset < found.there}
    back = {name for name, one in found.buffers.items() if one.offset >= found.back}
    assert there == {"image", "hole", "seeds", "packed", "originals"}
    assert back == {"log_alpha", "mu", "log_sigma", "primitive", "log_prob", "out"}


def test_buckets_are_few_hold_all_and_waste_a_third_at_most():
    assert [bucket(n, 64) for n in range(1, 14)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16]
    assert len({bucket(n, 4096) for n in range(1, 4097)}) == 24
    for n in range(1, 300):
        assert n <= bucket(n, 300) <= max(n, min(300, math.ceil(1.5 * n)))
    assert bucket(5, 5) == 5  # never more than the plan takes
    assert bucket(13, 14) == 14


@pytest.mark.parametrize(("n", "parts"), [(1, [1]), (16, [16]), (17, [16, 1]), (40, [16, 16, 8])])
def test_more_than_a_plan_takes_are_several_runs(n, parts):
    assert list(shares(n, 16)) == parts


def test_packed_canvases_have_room_for_others():
    assert padded(1) == padded(1 << 16) == 1 << 16
    assert padded((1 << 16) + 1) == 1 << 17


def test_profiles_follow_the_table():
    options = plans.Options("fp16", max_batch=4, max_k=12)
    ranges = {t.name: plans.ranges(t, options) for t in TABLES.decoder.inputs}
    assert ranges["z"] == ((1, 1, 128), (1, 6, 128), (4, 12, 128))
    assert ranges["f_0"] == ((1, 48, 16, 16), (1, 48, 16, 16), (4, 48, 16, 16))
    assert "box" not in ranges
    one = plans.ranges(TABLES.decoder.inputs[0], plans.Options("fp16", 1, 1))
    assert set(one) == {(1, 1, 128)}
