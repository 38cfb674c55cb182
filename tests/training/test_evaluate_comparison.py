import json
from pathlib import Path

import numpy as np
import pytest
import torch

from picme_rt.errors import InputError
from picme_training import masks
from picme_training.evaluate import comparison, distances, models, plots, report
from picme_training.evaluate.comparison import Item, Options

S, N, K = 64, 5, 3


class Colours:
    """A small feature space: mean and deviation of each colour, over 255."""

    name = "Colours"

    def __call__(self, pictures):
        flat = pictures.float().flatten(2) / 255
        return torch.cat([flat.mean(2), flat.std(2)], dim=1)


@pytest.fixture(scope="module")
def items(photographs):
    pixels = photographs[:N].permute(0, 2, 3, 1).contiguous().numpy()
    return [Item(f"{i}.png", picture, masks.centre(S)) for i, picture in enumerate(pixels)]


@pytest.fixture(scope="module")
def model(saved):
    return models.open_model(saved)


@pytest.fixture(scope="module")
def found(model, items, stand_in):
    options = Options(samples=K, seed=7, baselines=("telea", "mean"), patches=True)
    return comparison.compare(model, items, options, lpips=stand_in, features=Colours())


ABOUT = {
    "model": {"checkpoint": "RUN"},
    "data": "val",
    "pictures": N,
    "masks": "centre",
    "holes": 1,
    "size": S,
    "samples": K,
    "per_primitive": 2,
    "seed": 7,
    "feature_space": "Colours",
}


def test_every_measure_is_there_for_the_model_and_those_of_one_result_for_the_baselines(found):
    assert list(found.columns) == ["original", "model", "telea", "mean"]
    assert found.columns["model"].keys() == report.MEASURES.keys()
    of_pairs = {"pairwise", "std", "LPIPS_pairs", "DIV_FID"}
    of_pairs |= {"PSNR_averaged", "SSIM_averaged"}
    for name in ("telea", "mean"):
        assert found.columns[name].keys() == report.MEASURES.keys() - of_pairs
    assert found.columns["original"].keys() == {"seam", "patches", "FID", "KID"}
    assert found.scalars.keys() == report.PRIMITIVES.keys()
    for table in found.columns.values():
        assert all(np.isfinite(value.mean) for value in table.values())


def test_item_n_is_completed_with_the_seed_plus_n(found, model, items):
    assert len(found.shown) == N
    for place, (shown, item) in enumerate(zip(found.shown, items, strict=True)):
        done = model.encode(item.picture, item.hole).complete(k=K, seed=7 + place)
        assert (shown.results["model"] == done.images).all()
        assert (shown.results["telea"][0] == models.telea(item.picture, item.hole)).all()
        assert shown.results["mean"].shape == (1, S, S, 3)


def test_the_mean_error_is_that_of_the_pictures_shown(found, items):
    errors = {
        name: [
            np.abs(one.results[name].astype(float) - one.item.picture)[:, one.item.hole] / 255
            for one in found.shown
        ]
        for name in ("model", "telea", "mean")
    }
    for name, each in errors.items():
        value = found.columns[name]["MAE_hole"]
        means = [one.mean() for one in each]
        assert value.mean == pytest.approx(np.mean(means), rel=1e-5)
        assert value.spread == pytest.approx(np.std(means, ddof=1) / N**0.5, rel=1e-4)


def test_the_holes_of_a_picture_are_one_number_of_the_mean_and_its_spread():
    value = comparison.average([1, 3, 4, 6, 9, 9, 1], ["a", "a", "b", "b", "c", "c", "d"])
    means = [2, 5, 9, 1]
    assert value == pytest.approx((np.mean(means), np.std(means, ddof=1) / 2))


def test_fid_is_the_mean_over_the_sets_of_the_ith_results(found, items):
    from picme_training.evaluate.distances import frechet

    def places(pictures):
        return Colours()(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))

    real = places([item.picture for item in items])
    sets = [places([one.results["model"][i] for one in found.shown]) for i in range(K)]
    fids = [frechet(real, one) for one in sets]
    table = found.columns["model"]
    assert table["FID"] == pytest.approx((np.mean(fids), np.std(fids)), rel=1e-4)
    pairs = [frechet(sets[i], sets[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert table["DIV_FID"] == pytest.approx((np.mean(pairs), np.std(pairs)), rel=1e-3)
    assert found.columns["original"]["FID"].mean == pytest.approx(0, abs=1e-9)


def test_ratios_are_to_each_baseline_above_zero(found):
    ratios = comparison.relative(found.columns, "LPIPS_hole")
    own = found.columns["model"]["LPIPS_hole"].mean
    assert ratios["telea"] == pytest.approx(own / found.columns["telea"]["LPIPS_hole"].mean)
    assert list(ratios) == ["telea", "mean"]
    assert comparison.relative(found.columns, "pairwise") == {}


def test_the_gap_of_kid_is_of_all_results_of_both(found, items):
    def places(pictures):
        return Colours()(torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2))

    real = places([item.picture[None] for item in items])
    for name in ("telea", "mean"):
        made, other = (
            places([one.results[of] for one in found.shown]).view(len(items), -1, real.shape[1])
            for of in ("model", name)
        )
        gap = distances.kernel_gap(real, made, other, [item.name for item in items])
        assert found.gaps[name] == pytest.approx(gap, rel=1e-6)


def test_a_comparison_repeats_and_leaves_the_threads_as_they_were(model, items):
    threads = torch.get_num_threads()
    one, two = (comparison.compare(model, items, Options(samples=2)) for _ in range(2))
    assert (one.columns, one.scalars, one.shares) == (two.columns, two.scalars, two.shares)
    assert "LPIPS" not in one.columns["model"]
    assert "FID" not in one.columns["model"]
    assert torch.get_num_threads() == threads


def test_primitives_may_be_left_out_and_one_primitive_has_no_contrast(items, model, exported):
    plain = comparison.compare(model, items, Options(samples=2, per_primitive=0))
    assert "pixels_ratio" not in plain.scalars
    assert "between_share_z" in plain.scalars
    pic = models.open_model(exported("pic").path)
    single = comparison.compare(pic, items[:4], Options(samples=2))
    assert single.shares["alpha"] == single.shares["drawn"] == [1]
    assert single.scalars["between_share_z"] == 0
    assert "pixels_ratio" not in single.scalars


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"samples": 1}, "samples must be at least 2, got 1: diversity is measured in pairs"),
        ({"per_primitive": -1}, "per_primitive must be 0 or more"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"baselines": ("telea", "median")}, "baselines must be of telea, mean, got"),
    ],
)
def test_options_that_measure_nothing_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        Options(**options)


def test_too_few_pictures_are_refused(model, items):
    with pytest.raises(InputError, match="at least 4 pictures, got 3"):
        comparison.compare(model, items[:3], Options())


# The report


def test_the_json_holds_every_number_and_is_strict(found):
    said = json.loads(json.dumps(report.as_json(found, ABOUT), allow_nan=False))
    assert said["format"] == 1
    value = found.columns["telea"]["PSNR"]
    assert said["measures"]["telea"]["PSNR"] == {"mean": value.mean, "spread": value.spread}
    assert said["relative"]["LPIPS_hole"].keys() == {"telea", "mean"}
    assert said["KID_gap"]["mean"] == found.gaps["mean"]._asdict()
    assert said["primitives"]["alpha"] == found.shares["alpha"]
    assert said["primitives"]["pixels_ratio"] == found.scalars["pixels_ratio"]
    assert said["masks"] == "centre"


def test_the_table_has_a_row_a_measure_and_a_column_a_completer(found):
    text = report.as_markdown(found, ABOUT)
    lines = text.splitlines()
    assert "|  | original | model | telea | mean |" in lines
    for measure in (*report.MEASURES.values(), *report.PRIMITIVES.values()):
        assert sum(line.startswith(f"| {measure.label}") for line in lines) >= 1, measure
    assert any(line.startswith("| FID (Colours) ↓ |") for line in lines)
    assert any(line.startswith("| share best (Eq. 4) |") for line in lines)
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {6, 8, 3}


def test_the_documentation_explains_every_measure():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name, measure in (report.MEASURES | report.PRIMITIVES).items():
        rows = [line for line in page.splitlines() if f"`{name}`" in line]
        assert len(rows) == 1, name
        assert measure.label in rows[0]
        better = {"up": "more", "down": "less", "": "-"}[measure.better]
        assert rows[0].endswith(f"| {better} |")


# Its pictures


def test_the_sheet_has_a_row_a_picture(found):
    page = plots.sheet(found.shown)
    side = 2 * S  # enlarged by a whole factor
    columns = 2 + K + 2
    step = side + plots.GAP
    assert page.shape == (plots.TEXT + plots.GAP + N * step, plots.GAP + columns * step, 3)
    top, left = plots.TEXT + plots.GAP + step, plots.GAP + 2 * step
    first = found.shown[1].results["model"][0]
    assert (page[top : top + side : 2, left : left + side : 2] == first).all()


def test_rows_are_of_one_primitive(found):
    page = plots.rows_of_primitives(found.shown)
    side, step = 2 * S, 2 * S + plots.GAP
    made = found.shown[0].rows
    assert made.shape == (6, comparison.IN_ROW, S, S, 3)
    top, left = plots.TEXT + plots.GAP + 3 * step, 60 + 2 * step
    assert (page[top : top + side : 2, left : left + side : 2] == made[3, 1]).all()


def test_the_plane_is_that_of_the_largest_variance():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 6)) * [1, 5, 0.1, 3, 0.1, 0.1] + 40
    places, shares = plots.principal(values)
    assert shares == pytest.approx([25 / 35.03, 9 / 35.03], abs=0.04)
    assert abs(np.corrcoef(places[:, 0], values[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(places[:, 1], values[:, 3])[0, 1]) > 0.99


def test_latents_are_drawn_as_a_session_draws_them_in_a_panel_a_picture(found, model, items):
    z, primitive = plots.draws(found.shown[0].mixture, 7)
    done = model.encode(items[0].picture, items[0].hole).complete(k=9, seed=7)
    assert (primitive[:9] == done.primitives).all()
    assert z.shape == (plots.DRAWS, 128)
    page = plots.latents(found.shown, 7)
    assert page.shape == (plots.PANEL + 2 * plots.TEXT, comparison.MIXED * plots.PANEL, 3)
    inside = page[plots.TEXT : plots.PANEL, : plots.PANEL].reshape(-1, 3)
    for i in set(primitive.tolist()):
        assert (inside == plots._colour(i, 6)).all(1).any()
