"""Teaches a decoder of `cats` to do without the weave of its pixel-shuffle (weave.py).

    python training/unweave.py RUN OUT --config TOML --data DATA

The teacher is the decoder with its weave filtered out, the pupil the decoder as a runtime computes
it: it learns, by L1 in the hole, to give the teacher's pictures of the same latents. Encoder and
mixture stay as they are. Of TOML it takes the pictures' augmentation, the masks and the schedule.
"""

import argparse
import copy
import math
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from picme_rt.errors import PicmeError
from picme_training import checkpoint, compact, config, data, weave
from picme_training.config import RunConfig
from picme_training.gaussians import Mixture
from picme_training.networks import Picme

DRAWS = 4  # latents of a picture in one step


def main() -> int:
    """Trains, says how much of a weave there was and is, writes OUT; errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run, or a checkpoint")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new checkpoint")
    parser.add_argument("--config", type=Path, required=True, help="TOML of RUN's network")
    parser.add_argument("--data", type=Path, required=True, help="as of picme train")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        size = settings.network.size
        side = round(size / settings.augment.zoom)
        pictures = data.load_pictures(arguments.data, side, smallest=size).pixels
        print(unweave(arguments.run, arguments.out, settings, pictures))
    except PicmeError as exc:
        print(f"unweave.py: {exc}", file=sys.stderr)
        return 1
    return 0


def unweave(run: Path, out: Path, settings: RunConfig, pictures: Tensor) -> Path:
    """The averaged weights of a run, taught, as the checkpoint of another; gives its directory.

    Args:
        run: A run of preset `cats`, or a checkpoint.
        out: The folder of the new checkpoint, without any.
        settings: Its network is that of `run`; `schedule.steps` of `schedule.batch` pictures.
        pictures: (N, 3, side, side) uint8, to learn from.

    Raises:
        InputError: `out` has a checkpoint, or `run` is damaged or of another network.
    """
    place = checkpoint.find(run)
    pupil = Picme(settings.network)
    checkpoint.load_module(place, "ema", pupil)
    pupil = pupil.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # in no stub of torch's
    teacher = copy.deepcopy(pupil).requires_grad_(False)
    assert isinstance(teacher.decoder, compact.Decoder)
    teacher.decoder.without_weave = True
    schedule = settings.schedule
    optimizer = torch.optim.Adam(pupil.decoder.parameters(), schedule.lr)
    batches = data.ahead(data.Batches(pictures, settings), 0, schedule.steps)
    bar = tqdm(batches, total=schedule.steps, unit="step")
    for step, (image, hole) in enumerate(bar):
        random = torch.Generator().manual_seed(schedule.seed * 2**32 + step)
        # a little faster at first, for a moving average of gradients begins with few
        rate = min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        optimizer.param_groups[0]["lr"] = schedule.lr * rate
        with torch.autocast("cpu", torch.bfloat16, enabled=schedule.precision == "bf16"):
            wanted, found, holes = _both(teacher, pupil, image, hole, random)
        loss = ((found - wanted).abs() * holes).sum() / (3 * holes.sum())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        if step % 50 == 0:
            ratio = teacher.decoder.shuffle
            levels = [weave.strength(one, holes, ratio) for one in (found.detach(), wanted)]
            levels.append(weave.strength(image.repeat_interleave(DRAWS, 0), holes, ratio))
            said = "of pupil {:.2f}, teacher {:.2f}, originals {:.2f}".format(*map(float, levels))
            error = 127.5 * float(loss.detach())
            tqdm.write(f"step {step}: L1 {error:.2f}; weave {said} levels", file=sys.stderr)
    return checkpoint.with_weights(out, place, pupil)


def _both(
    teacher: Picme, pupil: Picme, image: Tensor, hole: Tensor, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The same latents by both decoders, and the holes, `DRAWS` a picture."""
    assert isinstance(pupil.decoder, compact.Decoder)
    with torch.no_grad():
        maps = teacher.features(image, hole)
        encoding = teacher.encoding(maps, hole)
        mixture = teacher.latent.mixture(encoding.condition)
        z = torch.stack([_drawn(mixture, random) for _ in range(DRAWS)], 1).flatten(0, 1)
        features = tuple(f.repeat_interleave(DRAWS, 0) for f in encoding.features)
        assert encoding.z_m is not None  # a vector latent always has z_m
        z_m, holes = (x.repeat_interleave(DRAWS, 0) for x in (encoding.z_m.mu, hole))
        wanted = teacher.decode(z, z_m, features, holes)[-1]
    prepared = pupil.decoder.prepared(maps, hole)
    features = tuple(f.repeat_interleave(DRAWS, 0) for f in prepared)
    return wanted, pupil.decode(z, z_m, features, holes)[-1], holes


def _drawn(mixture: Mixture, random: torch.Generator) -> Tensor:
    """One latent a picture, as a completion draws it at temperature 1."""
    j = torch.multinomial(mixture.log_alpha.exp(), 1, generator=random)[:, 0]
    one = mixture.primitive(j)
    return one.sample(torch.randn(one.mu.shape, generator=random))


if __name__ == "__main__":
    sys.exit(main())
