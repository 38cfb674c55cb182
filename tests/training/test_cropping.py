"""A box of a decoder's picture is the same as in its whole picture, wherever the box lies."""

import pytest
import torch

from picme_rt.framing import Box
from picme_rt.windows import windows
from picme_training import cropping
from picme_training.config import NetworkConfig
from picme_training.networks import Picme, fold

PRESETS = ["picme", "pic", "cats"]
S = 64
BOXES = {
    "whole": Box(0, 0, S, S),
    "middle": Box(16, 16, 48, 48),
    "a pixel in each corner": Box(0, 0, 1, 1),
    "top right": Box(0, S - 1, 1, S),
    "bottom left": Box(S - 1, 0, S, 1),
    "bottom right": Box(S - 1, S - 1, S, S),
    "one pixel": Box(31, 33, 32, 34),
    "odd": Box(5, 11, 24, 60),
    "a row": Box(40, 0, 41, S),
    "a column at the edge": Box(0, S - 3, S, S),
}


def wide_awake(preset, size, **more):
    """A network of random weights in which no path is switched off."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        model = Picme(NetworkConfig(preset, size, 1 if preset == "pic" else 6, **more))
        for weight in model.parameters():
            if weight.ndim == 0:
                weight.fill_(0.8)
            elif weight.ndim == 1:
                weight.add_(0.2 * torch.randn_like(weight))
    return fold(model)


@torch.no_grad()
def asked_of(model, size):
    """Inputs of the decoder for one random picture with a random hole, and its whole picture."""
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, size, size, generator=random) * 2 - 1
    hole = (torch.rand(1, 1, size, size, generator=random) < 0.4).float()
    encoding, mixture = model.encode(image, hole)
    z = mixture.mu[:, 0] + 0.3 * torch.randn(1, model.latent_dim, generator=random)
    inputs = z, encoding.z_m and encoding.z_m.mu, encoding.features, hole
    return inputs, model.decode(*inputs)[-1]


def largest_error(model, inputs, whole, box):
    size = whole.shape[-1]
    asked = windows(size, model.decoder.crops, box)
    with torch.no_grad():
        made = model.decode(*inputs, cropping.to(torch.from_numpy(asked.rows)))[-1]
    place = asked.made
    assert made.shape[2:] == (place.bottom - place.top, place.right - place.left)
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    part = made[:, :, box.top - place.top :, box.left - place.left :]
    wanted = whole[:, :, rows, columns]
    return (part[:, :, : wanted.shape[2], : wanted.shape[3]] - wanted).abs().max().item()


@pytest.fixture(scope="module", params=PRESETS)
def tiny(request, exported):
    model = exported(request.param).model
    return model, *asked_of(model, S)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_box_is_what_the_whole_picture_has_there(tiny, box):
    model, inputs, whole = tiny
    assert whole.std() > 0.05  # a network that says something
    assert largest_error(model, inputs, whole, box) < 1e-5


@pytest.mark.parametrize(("preset", "more"), [*((p, False) for p in PRESETS), ("cats", True)])
def test_it_holds_at_256_too(preset, more):
    model = wide_awake(preset, 256, detail=more, push_pull=more)
    inputs, whole = asked_of(model, 256)
    for box in (Box(101, 7, 158, 64), Box(0, 200, 30, 256), Box(128, 128, 129, 129)):
        assert largest_error(model, inputs, whole, box) < 1e-5


@pytest.mark.parametrize(("preset", "size"), [*((p, S) for p in PRESETS), ("cats", 2 * S)])
@pytest.mark.parametrize("side", range(2))
def test_a_halo_of_one_place_less_would_be_wrong(exported, preset, size, side):
    """The reaches of `crops` are as short as they may be."""
    pasted = size > S
    model = exported(preset).model
    if pasted:
        model = wide_awake(preset, size, detail=True, push_pull=True)
    inputs, whole = asked_of(model, size)
    kept = model.decoder.crops
    for i, crop in enumerate(kept):
        less = {"before": crop.before - (side == 0), "after": crop.after - (side == 1)}
        less["halo"] = max(crop.halo - 1, 0)
        model.decoder.crops = (*kept[:i], crop._replace(**less), *kept[i + 1 :])
        boxes = [Box(a, a, a + n, a + n) for a in range(20, 30) for n in (1, 2, 3, 4, 6)][
            :: size // S
        ]
        try:
            worst = max(largest_error(model, inputs, whole, box) for box in boxes)
        finally:
            model.decoder.crops = kept
        assert worst > 1e-4
