"""Noise maps: standard normals by the sampler's counter."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from picme_rt.errors import InputError
from picme_rt.kernels import normal, sample_gmm

SPECIFICATION = Path(__file__).parents[1] / "docs" / "sampling.md"
LAST_SEED = 2**64 - 1
GOLDEN = {  # by place; the documented case of docs/sampling.md
    1: "ef5d08c34c703f40d2573696c9fee3937440a9175d04b14c1c3380b9a0717777",
    7: "083af2cc5a15e2260c79d7d427c906826f545321068fb050671617d6cc18562a",
}


def seeds(*values):
    return np.array(values, np.uint64)


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize("place", GOLDEN)
def test_the_documented_maps_have_their_golden_hashes(place, impl):
    eps = normal(seeds(0, LAST_SEED), (3, 13, 21), k=4, first=5, place=place, impl=impl)
    found = hashlib.sha256(eps.astype("<f4").tobytes()).hexdigest()
    assert found == GOLDEN[place]
    assert found in SPECIFICATION.read_text(encoding="utf-8")


@pytest.mark.parametrize("impl", ["ref", "native"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 4), (0,), (3, 0, 2)])
def test_maps_have_the_asked_shape_for_any_number_of_images(shape, impl):
    for values in ((), (3,), (1, 2, 3)):
        eps = normal(seeds(*values), shape, k=2, impl=impl)
        assert eps.shape == (len(values), 2, *shape)
        assert eps.dtype == np.float32
        assert eps.tobytes() == normal(seeds(*values), shape, k=2, impl="ref").tobytes()


@pytest.mark.parametrize("impl", ["ref", "native"])
def test_a_map_depends_on_seed_place_and_index_alone(impl):
    ten = normal(seeds(5, 6, 7), (4, 9), k=10, impl=impl)
    assert (normal(seeds(5, 6, 7), (4, 9), k=3, first=6, impl=impl) == ten[:, 6:9]).all()
    assert (normal(seeds(6), (4, 9), k=10, impl=impl) == ten[1:2]).all()
    assert (normal(seeds(5, 6, 7), (36,), k=10, impl=impl).reshape(ten.shape) == ten).all()
    assert (
        normal(seeds(5, 6, 7), (20,), k=10, impl=impl) == ten.reshape(3, 10, 36)[..., :20]
    ).all()


def test_place_0_is_the_noise_of_the_latent_with_the_same_seed():
    zeros = np.zeros((1, 1, 50), np.float32)
    z = sample_gmm(zeros[..., 0], zeros, zeros, seeds(8), k=6).z
    assert (normal(seeds(8), (50,), k=6, place=0) == z).all()


def test_places_indices_and_seeds_are_independent_standard_normals():
    maps = [
        normal(seeds(seed), (512, 512), k=1, first=first, place=place)[0, 0].ravel()
        for seed, first, place in ((1, 0, 1), (2, 0, 1), (1, 1, 1), (1, 0, 2), (1, 0, 0))
    ]
    n = maps[0].size
    for i, one in enumerate(maps):
        value = np.sort(one.astype(np.float64))
        assert abs(value.mean()) < 4 / math.sqrt(n)
        assert abs(value.var() - 1) < 4 * math.sqrt(2 / n)
        step = slice(None, None, 64)  # the distribution at every 64th of the sorted numbers
        truth = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in value[step]])
        distance = np.abs(truth - (np.arange(n)[step] + 0.5) / n).max()
        assert distance < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov, 0.1 %
        for other in maps[:i]:
            assert abs((one * other).mean()) < 5 / math.sqrt(n)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": np.zeros(1, np.int64)}, "seeds must be uint64, got int64"),
        ({"seeds": np.zeros((1, 1), np.uint64)}, r"seeds must have the axes \(B\), got shape"),
        ({"seeds": [1]}, "seeds must be a NumPy array, got list"),
        ({"shape": (2, -1)}, "each of shape must be an integer from 0 to .*, got -1"),
        ({"shape": (2.0,)}, r"each of shape must be an integer .*, got 2\.0"),
        ({"shape": (2**20, 2**20)}, "shape must hold at most 17179869180 numbers, got"),
        ({"k": 0}, "k must be an integer from 1 to 4294967296, got 0"),
        ({"first": 2**32 - 1, "k": 2}, r"first \+ k must be at most 2\*\*32, got 4294967297"),
        ({"place": -1}, "place must be an integer from 0 to 4294967295, got -1"),
        ({"place": 2**32}, "place must be an integer from 0 to 4294967295"),
        ({"impl": "cuda"}, "impl must be one of auto, ref, native, got 'cuda'"),
        ({"threads": 0}, "threads must be an integer from 1 to 1024, got 0"),
    ],
)
def test_a_bad_argument_is_refused_with_one_clear_error(options, message):
    arguments = {"seeds": seeds(1), "shape": (3,), "k": 1, **options}
    with pytest.raises(InputError, match=message):
        normal(arguments.pop("seeds"), arguments.pop("shape"), **arguments)
