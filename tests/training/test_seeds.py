"""Seeds of generators: of 32 bits, and none that two places or two seeds share by accident."""

import pytest
import torch

from picme_training import seeds


def test_a_word_fits_torchs_generator_on_a_cpu_and_small_ones_are_as_written():
    assert seeds.word(0, 7) == 7
    assert seeds.word(3, 5, 64) == 3 * 64 + 5
    assert 0 <= seeds.word(2**32 - 1, 2**32 - 1) < 2**32


def test_seeds_and_steps_have_words_of_their_own():
    words = {seeds.word(seed, step) for seed in range(40) for step in range(5000)}
    assert len(words) == 40 * 5000


@pytest.mark.parametrize("places", [64, 1 << 32])
def test_seeds_that_differ_beyond_32_bits_draw_differently(places):
    numbers = [
        torch.rand(4, generator=torch.Generator().manual_seed(seeds.word(seed, 9, places)))
        for seed in (0, 1, 2**26, 2**31)
    ]
    assert len({tuple(one.tolist()) for one in numbers}) == len(numbers)
