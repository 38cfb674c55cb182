import dataclasses
import json
import math
from pathlib import Path

import pytest

from picme_rt.errors import InputError
from picme_training import config
from picme_training.config import (
    AugmentConfig,
    LossConfig,
    MaskConfig,
    NetworkConfig,
    RunConfig,
    ScheduleConfig,
)

SHIPPED = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.toml"))
SMALLEST = {"network": {"preset": "cats", "size": 64}, "schedule": {"steps": 10}}


def with_value(table, key, value):
    return {**SMALLEST, table: {**SMALLEST.get(table, {}), key: value}}


def test_configurations_are_shipped():
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads(path):
    run = config.load(path)
    assert run.schedule.steps >= run.schedule.evaluate_every


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_configuration_survives_its_dictionary_and_json(path):
    run = config.load(path)
    assert config.from_dict(run.to_dict()) == run
    assert config.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_every_value_survives_the_round_trip():
    run = RunConfig(
        NetworkConfig("cats", 256, 3, False, True, True, True, True),
        ScheduleConfig(7, 2, 1e-3, 2e-3, 0.5, 0.9, 0.25, 0.5, 3, "bf16", 11, 2.5),
        LossConfig(2, 3, 4, 5, 6, "forward", 0.5, 7, 8, 0.7, 0.3, 3, "draw", True, True),
        MaskConfig(1, 2, 3, 4),
        AugmentConfig(False, 0.5, 0.2, 15.0),
        "free",
    )
    assert config.from_dict(run.to_dict()) == run


def test_whitening_needs_batches():
    message = r"batch must be at least 2 .*network\.whiten, .* got 1"
    for network in (NetworkConfig("cats", 64), NetworkConfig("picme", 64, whiten=True)):
        with pytest.raises(InputError, match=message):
            RunConfig(network, ScheduleConfig(10, batch=1))
    RunConfig(NetworkConfig("picme", 64), ScheduleConfig(10, batch=1))


def test_detail_belongs_to_cats_above_64():
    for network in ({"preset": "cats", "size": 64}, {"preset": "picme", "size": 128}):
        with pytest.raises(InputError, match="detail belongs to preset cats above 64x64, got"):
            NetworkConfig(**network, detail=True)
    with pytest.raises(InputError, match="push_pull needs detail = true, got false"):
        NetworkConfig("cats", 128, push_pull=True)


def test_what_is_left_out_has_the_papers_defaults():
    run = config.from_dict(SMALLEST)
    assert run == RunConfig(NetworkConfig("cats", 64), ScheduleConfig(10))
    assert run.loss.adversarial == 0.05
    assert run.loss.direction == "reverse"
    assert run.loss.losers == 0.05
    assert run.loss.perceptual == 0
    assert (run.schedule.lr, run.schedule.beta1, run.schedule.beta2) == (1e-4, 0, 0.999)


def test_a_whole_number_is_good_for_a_share():
    assert config.from_dict(with_value("loss", "perceptual", 1)).loss.perceptual == 1


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({**SMALLEST, "optimizer": {}}, "unknown entry 'optimizer'"),
        ({**SMALLEST, "steps": 3}, "unknown entry 'steps'"),
        (with_value("loss", "gan", 1.0), r"\[loss\] has an unknown key 'gan'"),
        (with_value("network", "width", 3), r"\[network\] has an unknown key 'width'"),
        ({"schedule": {"steps": 10}}, r"lacks the tables \['network'\]"),
        ({}, r"lacks the tables \['network', 'schedule'\]"),
        ({**SMALLEST, "network": {"size": 64}}, r"\[network\] lacks \['preset'\]"),
        ({**SMALLEST, "schedule": {}}, r"\[schedule\] lacks \['steps'\]"),
        ({**SMALLEST, "framing": "loose"}, "framing must be 'aligned' or 'free', got 'loose'"),
    ],
)
def test_unknown_and_missing_keys_are_named(tables, text):
    with pytest.raises(InputError, match=text):
        config.from_dict(tables)


@pytest.mark.parametrize(
    ("table", "key", "value", "kind"),
    [
        ("schedule", "steps", 10.0, "int"),
        ("schedule", "steps", True, "int"),
        ("schedule", "lr", "fast", "float"),
        ("schedule", "lr", True, "float"),
        ("loss", "composite", 1, "bool"),
        ("network", "preset", 3, "string"),
        ("network", "size", "64", "int"),
        ("augment", "flip", "no", "bool"),
        ("masks", "centre", [1.0], "float"),
    ],
)
def test_a_value_of_another_type_is_refused(table, key, value, kind):
    with pytest.raises(InputError, match=rf"\[{table}\] {key} must be of type {kind}, got"):
        config.from_dict(with_value(table, key, value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_a_number_that_is_not_finite_is_refused(value):
    with pytest.raises(InputError, match=rf"\[schedule\] lr must be a finite number, got {value}"):
        config.from_dict(with_value("schedule", "lr", value))


def test_the_largest_shift_and_number_of_primitives_are_good():
    assert config.from_dict(with_value("loss", "shift", 63)).loss.shift == 63
    assert config.from_dict(with_value("network", "primitives", 4096)).network.primitives == 4096


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("network", "preset", "unet"),
        ("network", "size", 96),
        ("network", "primitives", 0),
        ("network", "primitives", 4097),
        ("schedule", "steps", 0),
        ("schedule", "batch", 0),
        ("schedule", "evaluate_every", 0),
        ("schedule", "precision", "fp16"),
        ("schedule", "ema", 1.0),
        ("schedule", "ema", -0.1),
        ("schedule", "lr", -1e-4),
        ("schedule", "lr_discriminator", -1e-4),
        ("schedule", "beta1", 1.0),
        ("schedule", "beta2", -0.1),
        ("schedule", "decay", 1.5),
        ("schedule", "decay", -0.5),
        ("schedule", "seed", -1),
        ("schedule", "seed", 2**32),
        ("schedule", "clip", -1.0),
        ("loss", "direction", "both"),
        ("loss", "decoded", "all"),
        ("loss", "losers", 1.0),
        ("loss", "losers", -0.1),
        ("loss", "gmm", -1.0),
        ("loss", "frequency", -1.0),
        ("loss", "elbo", -1.0),
        ("loss", "posterior", -1.0),
        ("loss", "match", -1.0),
        ("loss", "adversarial", -1.0),
        ("loss", "perceptual", -1.0),
        ("loss", "drawn", -1.0),
        ("masks", "strokes", -1.0),
        ("augment", "zoom", 0.0),
        ("augment", "zoom", 1.1),
        ("loss", "shift", -1),
        ("loss", "shift", 64),
        ("loss", "rim", -0.1),
        ("augment", "colour", -0.1),
        ("augment", "colour", 1.0),
        ("augment", "turn", -1.0),
        ("augment", "turn", 46.0),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_name(table, key, value):
    name = "mask weights" if table == "masks" else key
    with pytest.raises(InputError, match=rf"{name} must be .*, got"):
        config.from_dict(with_value(table, key, value))


def test_masks_without_any_weight_are_refused():
    nothing = {"centre": 0, "rectangles": 0, "strokes": 0}
    with pytest.raises(InputError, match="positive sum"):
        config.from_dict({**SMALLEST, "masks": nothing})


def test_pic_has_one_gaussian():
    assert config.from_dict(with_value("network", "primitives", 1)).network.primitives == 1
    with pytest.raises(InputError, match="preset pic has one Gaussian, got primitives = 6"):
        NetworkConfig("pic", 64)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.from_dict(SMALLEST).framing = "free"


# The file


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no configuration file .*none\.toml"):
        config.load(tmp_path / "none.toml")


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(InputError, match=f"CONFIG must be a TOML file, got the folder {tmp_path}"):
        config.load(tmp_path)


@pytest.mark.parametrize("content", [b"[network\n", b"preset: cats", b"\xff\xd8\xff\xe0 a picture"])
def test_a_file_that_is_no_toml_is_named(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.toml is not valid TOML"):
        config.load(tmp_path / "bad.toml")


# The learning rate


def test_without_decay_the_rate_is_constant():
    schedule = ScheduleConfig(steps=100)
    assert {schedule.rate(step) for step in range(101)} == {1.0}


def test_decay_is_a_cosine_to_zero_over_the_last_steps():
    schedule = ScheduleConfig(steps=100, decay=0.4)
    rates = [schedule.rate(step) for step in range(101)]
    assert set(rates[:61]) == {1.0}
    assert rates[80] == pytest.approx(0.5)
    assert rates[70] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert rates[60:] == sorted(rates[60:], reverse=True)
    assert rates[99] > 0
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize("name", ["judge_hole", "judge_features"])
def test_only_the_discriminator_of_cats_sees_the_hole_or_features(name):
    assert getattr(NetworkConfig("cats", 64, **{name: True}), name)
    with pytest.raises(InputError, match=f"{name} belongs to the discriminator of cats"):
        NetworkConfig("picme", 64, **{name: True})
