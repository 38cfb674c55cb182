"""Pictures of a report: the sheet, sampled latents (Fig. 10), rows of one primitive (Fig. 12)."""

import colorsys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw

from picme_rt import kernels
from picme_rt.encoded import Mixture
from picme_rt.images import Image
from picme_rt.sheet import HOLE_GREY
from picme_training.evaluate.comparison import Item, Shown

GAP, TEXT = 4, 14  # pixels between tiles, and of a line of text
DRAWS = 400  # latents of a panel
PANEL = 360  # pixels of its side
LEAST_TILE = 96  # smaller pictures are shown enlarged by a whole factor


def sheet(shown: Sequence[Shown]) -> Image:
    """A row a picture: masked, original, the results, then each baseline."""
    rows, names = [], ["masked", "original"]
    for column, results in shown[0].results.items():
        single = len(results) == 1
        names += [column if single else f"{column} {i}" for i in range(len(results))]
    for one in shown:
        tiles = [_masked(one.item), one.item.picture]
        rows.append([*tiles, *(tile for results in one.results.values() for tile in results)])
    return _grid(rows, names)


def rows_of_primitives(shown: Sequence[Shown]) -> Image:
    """The results of primitive i in row i (Fig. 12); each picture's rows below each other."""
    pages = []
    for one in shown:
        if one.rows is None or one.mixture is None:
            continue
        alpha = np.exp(one.mixture.log_alpha[0])
        rows = [[_masked(one.item), *results] for results in one.rows]
        says = [f"{i}: {a:.2f}" for i, a in enumerate(alpha)]
        names = ["row: alpha", *(f"result {i}" for i in range(one.rows.shape[1]))]
        pages.append(_grid(rows, names, beside=says))
    return np.concatenate(pages)


def latents(shown: Sequence[Shown], seed: int) -> Image:
    """z_c drawn from the mixture of each picture, in the plane of its first principal components.

    Colours are primitives, as in Fig. 10 (by PCA in place of t-SNE: it invents no clusters). The
    shares are those of the variance along each axis.
    """
    panels = [_panel(one, seed + n) for n, one in enumerate(shown) if one.mixture is not None]
    return np.concatenate(panels, axis=1)


def principal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, D) in the plane of their largest variance, (n, 2), and its shares, (2,)."""
    centred = torch.from_numpy(values.astype(np.float64) - values.mean(0, dtype=np.float64))
    # torch's and not NumPy's: its threads are the caller's to choose
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    return (u[:, :2] * s[:2]).numpy(), (s[:2] ** 2 / (s**2).sum()).numpy()


def draws(mixture: Mixture, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`DRAWS` latents (n, D) of a mixture and their primitives (n,), as a session draws them."""
    drawn = kernels.sample_gmm(*mixture, np.array([seed], np.uint64), k=DRAWS, log_prob=False)
    return np.asarray(drawn.z[0], np.float32), drawn.primitive[0]


def _panel(one: Shown, seed: int) -> Image:
    assert one.mixture is not None
    z, primitive = draws(one.mixture, seed)
    places, shares = principal(z)
    page = Pillow.new("RGB", (PANEL, PANEL + 2 * TEXT), "white")
    pen = ImageDraw.Draw(page)
    scale = (PANEL / 2 - 12) / np.abs(places).max()
    count = one.mixture.log_alpha.shape[1]
    for (x, y), owner in zip(PANEL / 2 + scale * places, primitive, strict=True):
        box = (x - 2.5, TEXT + y - 2.5, x + 2.5, TEXT + y + 2.5)
        pen.ellipse(box, fill=_colour(int(owner), count))
    pen.text((2, 0), f"{one.item.name}: {shares[0]:.0%} and {shares[1]:.0%}", fill="black")
    pen.rectangle((0, 0, PANEL - 1, PANEL + 2 * TEXT - 1), outline="grey")
    alpha = np.exp(one.mixture.log_alpha[0])
    for i in range(count):
        where = (4 + i * (PANEL - 8) / count, PANEL + TEXT)
        pen.text(where, f"{i}: {alpha[i]:.2f}", fill=_colour(i, count))
    return np.array(page)


def _colour(i: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(i / count, 0.85, 0.45 + 0.35 * (i % 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def _masked(item: Item) -> Image:
    found = item.picture.copy()
    found[item.hole] = HOLE_GREY
    return found


def _grid(rows: list[list[Image]], names: Sequence[str], *, beside: Sequence[str] = ()) -> Image:
    """Tiles in rows on white, names above the columns, and beside the rows if there are any."""
    side = rows[0][0].shape[0]
    factor = -(-LEAST_TILE // side)
    tile = side * factor
    left = 60 if beside else GAP
    width, height = left + len(names) * (tile + GAP), TEXT + GAP + len(rows) * (tile + GAP)
    page = Pillow.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(names):
        pen.text((left + column * (tile + GAP), 0), name, fill="black")
    for row, tiles in enumerate(rows):
        top = TEXT + GAP + row * (tile + GAP)
        if beside:
            pen.text((2, top), beside[row], fill="black")
        for column, picture in enumerate(tiles):
            large = picture.repeat(factor, 0).repeat(factor, 1)
            page.paste(Pillow.fromarray(large), (left + column * (tile + GAP), top))
    return np.array(page)
