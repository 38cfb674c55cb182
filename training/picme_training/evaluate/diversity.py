"""An engine of one picture at its three diversities, as IDC's Table S2 has them."""

import torch

from picme_rt.errors import InputError
from picme_rt.images import Hole, Image
from picme_rt.pyramid import DIVERSITY
from picme_rt.session import Session
from picme_training.evaluate import measures
from picme_training.perceptual import Lpips


@torch.no_grad()
def compare(
    session: Session, img: Image, hole: Hole, *, k: int, seed: int, lpips: Lpips | None = None
) -> dict[str, dict[str, float]]:
    """Measures k results of an engine of kind `idc` at each diversity, and the original.

    Args:
        session: Of the engine.
        img: (H, W, 3) uint8, its picture; what is under the hole serves for comparison alone.
        hole: (H, W) bool, inside of the engine's.
        k: Results, at least 2.
        seed: Of the results.
        lpips: Adds the perceptual measures.

    Returns:
        By column (`original`, `low`, `mid`, `high`), then by measure.

    Raises:
        InputError: It is another picture or mask than the engine's, their sizes differ, or the
            hole is empty.
    """
    if not hole.any():
        raise InputError("mask must have a hole to measure in, got an empty one")
    original = torch.tensor(img).permute(2, 0, 1).contiguous()
    inside = torch.tensor(hole)
    only = original[None]
    encoded = session.encode(img, hole)  # first: what is not the engine's is refused here
    found = {
        "original": {
            "seam": measures.seam_jump(only, inside),
            "patches": measures.patches(only, inside),
        }
    }
    for name, places in DIVERSITY.items():
        made = encoded.complete(k=k, seed=seed, diversity=places).images
        results = torch.from_numpy(made).permute(0, 3, 1, 2)
        found[name] = measures.of_pixels(results, original, inside)
        found[name]["patches"] = measures.patches(results, inside)
        if lpips is not None:
            taps = lpips.taps(measures.in_network(torch.cat([only, results])))
            both = [tap[1:] for tap in taps], [tap[:1] for tap in taps]
            found[name] |= measures.perceptual(*both, inside, lpips)
    return found
