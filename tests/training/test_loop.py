import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from picme_rt.cli import main
from picme_rt.errors import InputError
from picme_training import checkpoint, data, loop, verb
from picme_training.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.data import Batches
from picme_training.loop import Trainer, average, train
from picme_training.networks import Picme
from picme_training.perceptual import Lpips

CONFIG = RunConfig(
    NetworkConfig("cats", 64, 3), ScheduleConfig(steps=5, batch=2, lr=1e-3, evaluate_every=2)
)
TOML = """
[network]
preset = "cats"
size = 64
primitives = 3
[schedule]
steps = {steps}
batch = 2
lr = 1e-3
evaluate_every = 2
{more}
"""


class Broken(Batches):
    """Pictures that are pulled away at the step of index 3."""

    def batch(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return super().batch(step)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses_of(out):
    """The losses by step; how fast they were computed is left out."""
    return {
        line["step"]: {k: v for k, v in line.items() if k != "images/s"}
        for line in lines(out)
        if "loss" in line
    }


def hashes(place):
    return json.loads((place / "checkpoint.json").read_text())["sha256"]


@pytest.fixture(scope="module", autouse=True)
def every_step_is_logged():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        yield


@pytest.fixture(scope="module")
def run(photographs, tmp_path_factory):
    """(folder, last checkpoint) of a whole run of five steps."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out)


@pytest.fixture
def interrupted(photographs, tmp_path):
    """The folder of the same run, broken off after three steps."""
    out = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, Broken(photographs, CONFIG), photographs[:3], out)
    return out


@pytest.fixture
def batch(photographs):
    return Batches(photographs, CONFIG).batch(0)


def trainer_of(**schedule):
    config = dataclasses.replace(CONFIG, schedule=dataclasses.replace(CONFIG.schedule, **schedule))
    return Trainer(config, torch.device("cpu"), None)


# What a run leaves


def test_every_loss_of_every_step_is_finite_and_logged(run):
    steps = losses_of(run[0])
    assert sorted(steps) == [1, 2, 3, 4, 5]
    expected = {"step", "loss", "L_F", "L_BM", "KL_c", "KL_m", "L1", "L1_known", "L_A", "L_D"}
    for losses in steps.values():
        assert set(losses) == expected
        assert all(np.isfinite(value) for value in losses.values())


def test_evaluations_are_logged_every_so_many_steps_and_at_the_end(run):
    measured = {line["step"]: line for line in lines(run[0]) if "val_pairwise" in line}
    assert sorted(measured) == [2, 4, 5]
    for line in measured.values():
        assert sum(line["used"]) == pytest.approx(1, abs=1e-3)
        assert sum(line["alpha"]) == pytest.approx(1, abs=1e-3)


def test_each_evaluation_leaves_a_grid_of_samples(run):
    samples = sorted((run[0] / "samples").iterdir())
    assert [path.name for path in samples] == [f"step_{step:08d}.png" for step in (2, 4, 5)]
    with Image.open(samples[-1]) as grid:
        assert grid.size == (8 * 64, 3 * 64)


def test_the_last_checkpoint_is_given_and_two_are_kept(run):
    out, last = run
    assert last == out / "checkpoints" / "step_00000005" == checkpoint.find(out)
    assert len(list((out / "checkpoints").iterdir())) == 2
    assert checkpoint.describe(last) == (CONFIG, 5, 10, None)


def test_tensorboard_has_events(run):
    events = list(run[0].glob("events.out.tfevents.*"))
    assert len(events) == 1
    content = events[0].read_bytes()
    for name in (b"train/L1", b"val/pairwise", b"primitives/used_2", b"val/completions"):
        assert name in content


def test_a_run_repeats_to_the_bit(run, photographs, tmp_path):
    again = train(CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path / "again")
    assert hashes(again) == hashes(run[1])
    assert losses_of(tmp_path / "again") == losses_of(run[0])


def test_another_seed_is_another_run(photographs):
    one, two = trainer_of(seed=0), trainer_of(seed=1)
    assert not all(torch.equal(a, b) for a, b in zip(
        one.model.parameters(), two.model.parameters(), strict=True))  # fmt: skip


def test_training_lowers_the_reconstruction_loss(batch):
    trainer = trainer_of(steps=12, lr=3e-4)
    found = [trainer.train_step(*batch)["L1"].item() for _ in range(12)]
    assert np.mean(found[-3:]) < 0.7 * found[0]


# Going on


def test_a_resumed_run_ends_as_the_unbroken_one_to_the_bit(run, interrupted, photographs):
    last = train(CONFIG, Batches(photographs, CONFIG), photographs[:3], interrupted, resume=True)
    assert hashes(last) == hashes(run[1])
    assert losses_of(interrupted) == losses_of(run[0])


def test_a_resumed_run_has_every_step_once_in_its_curves(interrupted, photographs):
    assert [line["step"] for line in lines(interrupted) if "loss" in line] == [1, 2, 3]
    train(CONFIG, Batches(photographs, CONFIG), photographs[:3], interrupted, resume=True)
    assert [line["step"] for line in lines(interrupted) if "loss" in line] == [1, 2, 3, 4, 5]


def test_half_a_line_that_a_killed_run_left_is_forgotten(run, interrupted, photographs):
    with (interrupted / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 1, "loss": 0.1')
    train(CONFIG, Batches(photographs, CONFIG), photographs[:3], interrupted, resume=True)
    assert losses_of(interrupted) == losses_of(run[0])


@pytest.mark.parametrize("line", [b"\x00\x00\x00", b"{}", b"[1]", b"\xff"])
def test_curves_with_a_damaged_line_are_named_and_stay(interrupted, photographs, line):
    metrics = interrupted / "metrics.jsonl"
    damaged = line + b"\n" + metrics.read_bytes()
    metrics.write_bytes(damaged)
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged"):
        train(CONFIG, Batches(photographs, CONFIG), photographs[:3], interrupted, resume=True)
    assert metrics.read_bytes() == damaged
    metrics.rename(metrics.with_name("moved"))
    train(CONFIG, Batches(photographs, CONFIG), photographs[:3], interrupted, resume=True)
    assert sorted(losses_of(interrupted)) == [3, 4, 5]


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(run, photographs, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"st')
    with pytest.raises(InputError, match="neither a checkpoint nor a run"):
        train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out, resume=True)
    train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out)
    assert losses_of(out) == losses_of(run[0])
    assert (out / "metrics.stopped.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"st'


def test_a_resumed_run_sweeps_what_a_killed_one_left(interrupted, photographs):
    for folder in (".", "checkpoints", "samples"):
        (interrupted / folder / ".picme-abcd1234.tmp" / "new").mkdir(parents=True)
    train(CONFIG, Batches(photographs, CONFIG), photographs[:3], interrupted, resume=True)
    assert not list(interrupted.rglob(".picme-*"))


def test_a_run_that_was_killed_before_it_could_delete_the_oldest_keeps_two_too(
    run, photographs, tmp_path, monkeypatch
):
    out, killed = tmp_path / "run", KeyboardInterrupt

    def kill(place):
        if (out / "checkpoints" / "step_00000005").exists():  # the last one is written
            raise killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.atomic, "remove", kill)
        with pytest.raises(killed):
            train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out)
    assert len(list((out / "checkpoints").iterdir())) == 3
    train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out, resume=True)
    names = [path.name for path in sorted((out / "checkpoints").iterdir())]
    assert names == ["step_00000004", "step_00000005"]
    assert hashes(out / "checkpoints" / names[-1]) == hashes(run[1])


def test_samples_are_never_half_written(photographs, tmp_path, monkeypatch):
    def stop(image, path, *given, **named):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    monkeypatch.setattr("picme_training.board.Board.add_image", lambda *given: None)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path / "run")
    assert not list((tmp_path / "run" / "samples").iterdir())


def test_a_new_run_may_begin_with_the_weights_of_another(run, photographs, tmp_path):
    still = dataclasses.replace(
        CONFIG, schedule=dataclasses.replace(CONFIG.schedule, lr=0.0, lr_discriminator=0.0)
    )
    batches = Batches(photographs, still)
    last = train(still, batches, photographs[:3], tmp_path / "tuned", start_from=run[0])
    weights, before = load_file(last / "ema.safetensors"), load_file(run[1] / "ema.safetensors")
    assert lines(tmp_path / "tuned")[0]["step"] == 1
    assert checkpoint.describe(last).pictures == 20  # five steps of two, in each of the two runs
    for name in ("encoder.enter.weight", "decoder.colours.weight"):
        torch.testing.assert_close(weights[name], before[name], atol=0.05, rtol=0)
    assert hashes(last)["ema.safetensors"] != hashes(run[1])["ema.safetensors"]


def test_a_new_run_may_begin_with_averaged_weights_alone(run, photographs, tmp_path):
    said = checkpoint.describe(run[1])
    model = Picme(CONFIG.network)
    checkpoint.load_module(run[1], "ema", model)
    alone = checkpoint.save_weights(tmp_path / "alone", said, model)
    still = dataclasses.replace(
        CONFIG, schedule=dataclasses.replace(CONFIG.schedule, steps=1, evaluate_every=1, lr=0.0)
    )
    given = still, Batches(photographs, still), photographs[:3]
    last = train(*given, tmp_path / "tuned", start_from=alone)
    weights, before = load_file(last / "model.safetensors"), load_file(run[1] / "ema.safetensors")
    assert torch.equal(weights["encoder.enter.weight"], before["encoder.enter.weight"])


def test_resuming_and_beginning_anew_exclude_each_other(run, photographs):
    with pytest.raises(InputError, match="leave out --start-from"):
        train(
            CONFIG,
            Batches(photographs, CONFIG),
            photographs,
            run[0],
            resume=True,
            start_from=run[0],
        )


def test_beginning_with_another_network_is_refused(run, photographs, tmp_path):
    other = dataclasses.replace(CONFIG, network=NetworkConfig("cats", 64, 4))
    with pytest.raises(InputError, match="same primitives and mask_channel"):
        train(other, Batches(photographs, other), photographs, tmp_path / "x", start_from=run[0])


def test_a_finished_run_that_is_resumed_gives_its_last_checkpoint(run, photographs):
    out, last = run
    before = hashes(last)
    again = train(CONFIG, Batches(photographs, CONFIG), photographs[:3], out, resume=True)
    assert again == last
    assert hashes(last) == before


def test_a_run_in_stages_ends_as_the_unbroken_one_to_the_bit(run, photographs, tmp_path):
    given = CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path
    first = train(*given, stop=3)
    assert checkpoint.describe(first) == (CONFIG, 3, 6, None)
    assert [line["step"] for line in lines(tmp_path) if "val_pairwise" in line] == [2, 3]
    assert train(*given, resume=True, stop=3) == first
    assert hashes(train(*given, resume=True)) == hashes(run[1])


def test_a_stop_behind_the_run_or_past_its_end_is_refused(run, photographs, tmp_path):
    given = CONFIG, Batches(photographs, CONFIG), photographs[:3]
    with pytest.raises(InputError, match=r"a step from 5, where the run is, to 5, .* got 4"):
        train(*given, run[0], resume=True, stop=4)
    for stop in (0, 6):
        with pytest.raises(InputError, match=f"must be a step from 1, .* to 5, .* got {stop}"):
            train(*given, tmp_path / str(stop), stop=stop)


def test_an_existing_run_is_refused_without_resume(run, photographs):
    with pytest.raises(InputError, match="holds a run; pass --resume"):
        train(CONFIG, Batches(photographs, CONFIG), photographs[:3], run[0])


def test_resuming_with_another_configuration_is_refused(interrupted, photographs):
    other = dataclasses.replace(CONFIG, loss=LossConfig(gmm=2))
    with pytest.raises(InputError, match="made with another configuration"):
        train(other, Batches(photographs, other), photographs[:3], interrupted, resume=True)


def test_resuming_nothing_is_refused(tmp_path, photographs):
    with pytest.raises(InputError, match="neither a checkpoint nor a run"):
        train(CONFIG, Batches(photographs, CONFIG), photographs[:3], tmp_path, resume=True)


# One step


def test_both_optimisers_move_their_own_network(batch):
    trainer = trainer_of()
    model, judge = copy.deepcopy(trainer.model), copy.deepcopy(trainer.judge)
    trainer.train_step(*batch)
    moved = [
        not torch.equal(a, b)
        for old, new in ((model, trainer.model), (judge, trainer.judge))
        for a, b in zip(old.parameters(), new.parameters(), strict=True)
    ]
    assert np.mean(moved) > 0.9


def test_the_discriminator_s_step_is_made_of_its_own_loss_alone(batch):
    # were the generator's adversarial gradient to leak into D, its weight would change D's step
    found = []
    for weight in (0.0, 10.0):
        config = dataclasses.replace(CONFIG, loss=LossConfig(adversarial=weight))
        trainer = Trainer(config, torch.device("cpu"), None)
        trainer.train_step(*batch)
        found.append(list(trainer.judge.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_every_step_draws_its_own_noise_by_seed_and_step(batch, monkeypatch):
    drawn = []
    real = loop.generator_pass
    monkeypatch.setattr(
        loop, "generator_pass", lambda *given: drawn.append(given[4]) or real(*given)
    )
    trainer, later, other = trainer_of(), trainer_of(), trainer_of(seed=1)
    for _ in range(2):
        trainer.train_step(*batch)
    later.step = 1
    later.train_step(*batch)
    other.train_step(*batch)
    assert not torch.equal(drawn[0].z_c, drawn[1].z_c)
    assert torch.equal(drawn[1].z_c, drawn[2].z_c)
    assert not torch.equal(drawn[0].z_c, drawn[3].z_c)


def test_the_learning_rate_falls_along_the_schedule(batch):
    trainer = trainer_of(steps=4, decay=0.5, lr=1e-3, lr_discriminator=4e-3)
    rates = []
    for _ in range(4):
        trainer.train_step(*batch)
        rates.append([o.param_groups[0]["lr"] for o in trainer.optimizers.values()])
    schedule = trainer.config.schedule
    assert rates == [[1e-3 * schedule.rate(s), 4e-3 * schedule.rate(s)] for s in range(4)]
    assert rates[3][0] == pytest.approx(0.5e-3)


def test_a_step_in_bf16_keeps_weights_and_losses_in_fp32(batch):
    trainer = trainer_of(precision="bf16")
    terms = trainer.train_step(*batch)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in terms.values())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    exact = trainer_of().train_step(*batch)
    assert terms["L1"].item() == pytest.approx(exact["L1"].item(), rel=0.05)


@pytest.mark.parametrize("name", ["perceptual", "drawn"])
def test_a_perceptual_loss_needs_its_weights(name):
    config = dataclasses.replace(CONFIG, loss=LossConfig(**{name: 1}))
    with pytest.raises(InputError, match=rf"{name} > 0 .*--lpips-weights .* or set {name} = 0"):
        Trainer(config, torch.device("cpu"), None)


# The average


def test_the_average_is_the_exponential_one_of_the_weights(batch):
    trainer = trainer_of(ema=0.3)
    expected = [p.detach().double().clone() for p in trainer.model.parameters()]
    for step in range(4):
        trainer.train_step(*batch)
        decay = min(0.3, (1 + step) / (10 + step))
        live = (p.detach().double() for p in trainer.model.parameters())
        expected = [decay * kept + (1 - decay) * new
                    for kept, new in zip(expected, live, strict=True)]  # fmt: skip
    for kept, value in zip(trainer.ema.parameters(), expected, strict=True):
        torch.testing.assert_close(kept.double(), value, atol=1e-6, rtol=1e-5)
        assert not kept.requires_grad


def test_an_average_without_decay_follows_the_weights(batch):
    trainer = trainer_of(ema=0.0)
    trainer.train_step(*batch)
    for kept, live in zip(trainer.ema.parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(kept, live.detach())


def test_the_average_copies_buffers():
    kept, live = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    live.running_mean += 5
    average(kept, live, decay=0.9)
    assert kept.running_mean.tolist() == [5, 5]


# picme train


@pytest.fixture
def command(tmp_path, picture_folder):
    """Calls `picme train` on the photographs."""

    def call(*flags, steps=2, more="", data=picture_folder):
        path = tmp_path / "run.toml"
        path.write_text(TOML.format(steps=steps, more=more))
        places = ("--data", str(data), "--out", str(tmp_path / "out"))
        return main(["train", str(path), *places, *flags])

    return call


def test_picme_train_trains_and_prints_its_last_checkpoint(
    command, tmp_path, picture_folder, capsys
):
    assert command("--val", str(picture_folder)) == 0
    place = tmp_path / "out" / "checkpoints" / "step_00000002"
    assert capsys.readouterr().out.splitlines() == [str(place)]
    config, step, *_ = checkpoint.describe(place)
    assert step == 2
    assert config.network == NetworkConfig("cats", 64, 3)


def test_picme_train_goes_on_with_resume(command, picture_folder, capsys):
    val = ("--val", str(picture_folder))
    assert command(*val) == 0
    assert command(*val) == 1
    assert "pass --resume" in capsys.readouterr().err
    assert command(*val, "--resume") == 0
    assert command(*val, "--resume", steps=4) == 1
    assert "another configuration: schedule.steps = 2, not 4; resume" in capsys.readouterr().err


def test_picme_train_does_not_go_on_with_other_pictures_or_masks(
    command, picture_folder, tmp_path, capsys
):
    val, other, masks = ("--val", str(picture_folder)), tmp_path / "other", tmp_path / "masks"
    shutil.copytree(picture_folder, other)
    assert command(*val) == 0
    place = tmp_path / "out" / "checkpoints" / "step_00000002"
    assert command(*val, "--resume", data=other) == 0  # where they lie says nothing
    (other / "0.png").rename(other / "renamed.png")
    assert command(*val, "--resume", data=other) == 1
    said = capsys.readouterr().err
    assert f"{place} has learnt from 8 pictures and 0 masks, --data and --masks are 8" in said
    assert "8 pictures and 0 masks of other names; resume with the same, or begin another" in said
    (other / "renamed.png").unlink()
    assert command(*val, "--resume", data=other) == 1
    assert "--data and --masks are 7 pictures and 0 masks; resume" in capsys.readouterr().err
    masks.mkdir()
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(masks / "one.png")
    more = "[masks]\nfolder = 1"
    begun = tmp_path / "out" / "checkpoints"
    begun.rename(tmp_path / "unmasked")
    assert command(*val, "--masks", str(masks), more=more) == 0
    (masks / "one.png").rename(masks / "two.png")
    assert command(*val, "--masks", str(masks), "--resume", more=more) == 1
    assert "8 pictures and 1 masks of other names" in capsys.readouterr().err


def test_picme_train_goes_on_with_a_pack_of_its_folder(command, picture_folder, tmp_path):
    packed = tmp_path / "pictures.pack"
    assert main(["pack", str(picture_folder), "-o", str(packed), "--size", "64"]) == 0
    val = ("--val", str(picture_folder))
    assert command(*val) == 0
    assert command(*val, "--resume", data=packed) == 0


def test_a_checkpoint_that_does_not_know_its_dataset_goes_on(command, picture_folder, tmp_path):
    val = ("--val", str(picture_folder))
    assert command(*val) == 0
    file = tmp_path / "out" / "checkpoints" / "step_00000002" / "checkpoint.json"
    content = json.loads(file.read_text())
    del content["dataset"]
    file.write_text(json.dumps(content))
    assert command(*val, "--resume") == 0


@pytest.mark.parametrize("name", ["checkpoint.json", "optimizer.safetensors"])
def test_picme_train_looks_at_the_checkpoint_before_it_reads_pictures(
    command, picture_folder, tmp_path, capsys, monkeypatch, name
):
    val = ("--val", str(picture_folder))
    assert command(*val) == 0
    (tmp_path / "out" / "checkpoints" / "step_00000002" / name).unlink()
    monkeypatch.setattr(data, "load_pictures", lambda *given, **more: 1 / 0)
    capsys.readouterr()
    assert command(*val, "--resume") == 1
    assert name in capsys.readouterr().err
    other = ("--start-from", str(tmp_path / "out"), "--out", str(tmp_path / "new"))
    if name == "checkpoint.json":
        assert command(*val, *other) == 1
        assert "has no checkpoint.json" in capsys.readouterr().err


def test_picme_train_looks_at_the_network_to_start_from_before_it_reads_pictures(
    command, picture_folder, tmp_path, capsys, monkeypatch
):
    val = ("--val", str(picture_folder))
    assert command(*val) == 0
    (tmp_path / "out").rename(tmp_path / "before")
    monkeypatch.setattr(data, "load_pictures", lambda *given, **more: 1 / 0)
    more = "[augment]\nflip = false"
    file = next((tmp_path / "before").glob("checkpoints/*/checkpoint.json"))
    content = json.loads(file.read_text())
    content["config"]["network"]["primitives"] = 4
    file.write_text(json.dumps(content))
    capsys.readouterr()
    assert command(*val, "--start-from", str(tmp_path / "before"), more=more) == 1
    assert "a run starts from the weights of its own network" in capsys.readouterr().err


def test_picme_train_holds_out_the_last_pictures(command, capsys, monkeypatch):
    assert command() == 1
    assert "more than 64 pictures where no --val is given, got 8" in capsys.readouterr().err
    monkeypatch.setattr(verb, "HELD_OUT", 2)
    assert command(steps=1) == 0


def test_picme_train_takes_masks_and_lpips_weights(command, tmp_path, picture_folder):
    (tmp_path / "masks").mkdir()
    hole = np.zeros((64, 64), np.uint8)
    hole[20:40, 20:40] = 255
    Image.fromarray(hole).save(tmp_path / "masks" / "one.png")
    stored = {k: v for k, v in Lpips().state_dict().items() if k.startswith("features.")}
    for i, width in enumerate((64, 128, 256, 384, 384, 512, 512)):
        stored[f"lin{i}.model.1.weight"] = torch.rand(1, width, 1, 1)
    save_file(stored, tmp_path / "lpips.safetensors")
    more = "[masks]\nfolder = 1.0\n[loss]\nperceptual = 1.0"
    flags = ("--val", str(picture_folder))
    assert command(*flags, steps=1, more=more) == 1  # LPIPS is missing
    flags += ("--lpips-weights", str(tmp_path / "lpips.safetensors"))
    flags += ("--masks", str(tmp_path / "masks"))
    assert command(*flags, steps=1, more=more) == 0
    measured = lines(tmp_path / "out")
    assert "LPIPS" in measured[0]
    assert "val_LPIPS" in measured[-1]


def test_a_stored_average_is_what_an_export_reads(run):
    stored = load_file(run[1] / "ema.safetensors")
    model = Trainer(CONFIG, torch.device("cpu"), None).ema
    assert stored.keys() == model.state_dict().keys()


@pytest.mark.parametrize(("more", "text"), [("speed = 3", "unknown key"), ("]", "not valid TOML")])
def test_picme_train_refuses_a_bad_configuration_in_one_line(command, capsys, more, text):
    assert command(more=more) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_picme_train_refuses_a_folder_without_pictures(command, tmp_path, capsys):
    assert command(data=tmp_path / "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err
