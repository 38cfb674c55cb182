"""Two processes compute what one does at the joint batch, write once, and end together.

Run by torchrun, this file is also what each of the processes does: `python test_distributed.py
NOTES ACTION ...`, see the end.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from picme_rt.cli import main
from picme_rt.errors import InputError, UnavailableError
from picme_training import checkpoint, distributed, loop
from picme_training.config import LossConfig, NetworkConfig, RunConfig, ScheduleConfig
from picme_training.loop import Trainer
from picme_training.perceptual import Lpips

PRESETS = {"picme": 2, "pic": 1, "cats": 3}  # how many steps are compared
# every loss and weight is on, so that each of them has to be the joint batch's
LOSSES = LossConfig(match=0.1, perceptual=1, rim=0.5, composite=True, decoded="both")
ENDED = (
    "this run has ended, because another process of it died or was stopped; its newest "
    "checkpoint is"
)
PATIENCE = 300  # seconds: far more than anything here takes
TOML = """
[network]
preset = "cats"
size = 64
primitives = 3
[schedule]
steps = 4
batch = {batch}
lr = 1e-4
evaluate_every = 2
"""


@contextlib.contextmanager
def in_float64():
    """In float32 the order of a sum shows at 1e-5, and would hide a small mistake."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def few_steps(preset):
    """What a few steps leave: gradients and losses of the first, then everything at the end."""
    batch = 4 if preset == "cats" else 2  # whitened rows need company
    network = NetworkConfig(preset, 64, 1 if preset == "pic" else 3)
    config = RunConfig(network, ScheduleConfig(3, batch), LOSSES)
    torch.manual_seed(1)
    measure = Lpips().eval().requires_grad_(False)
    for lin in measure.lins:
        torch.nn.init.uniform_(lin)
    trainer = Trainer(config, torch.device("cpu"), measure)
    generator = torch.Generator().manual_seed(2)
    hole = torch.zeros(batch, 1, 64, 64)
    for one, side in zip(hole, (60, 12, 50, 20), strict=False):  # unequal shares are known
        one[:, 2 : 2 + side, 1 : 1 + side] = 1
    found = {}
    for step in range(PRESETS[preset]):
        terms = trainer.train_step(2 * torch.rand(batch, 3, 64, 64, generator=generator) - 1, hole)
        if step == 0:
            found |= {f"term.{k}": v for k, v in distributed.mean(terms).items()}
            for name, module in (("model", trainer.model), ("judge", trainer.judge)):
                grads = {k: p.grad.clone() for k, p in module.named_parameters()}
                found |= {f"grad.{name}.{k}": v for k, v in grads.items()}
    for name, module in zip(("model", "ema", "judge"), trainer.state, strict=False):
        found |= {f"{name}.{k}": v.clone() for k, v in module.state_dict().items()}
    return {k: v.contiguous() for k, v in found.items()}


class Ended(NamedTuple):
    """How torchrun ended, and what each process had written to stderr and stdout."""

    code: int
    errors: list[str]
    outputs: list[str]


def alive(notes):
    """The processes that torchrun had started and that are still there."""
    found = []
    for note in notes.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(note.stem), 0)
            found.append(int(note.stem))
    return found


def torchrun(folder, *arguments):
    """Two processes of this file; kills what is left of them."""
    notes = folder / "notes"
    notes.mkdir()
    command = ["--standalone", "--nproc-per-node", "2", "--log-dir", notes, "--redirects", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *command, __file__, notes, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        code = process.wait(PATIENCE)
        assert not alive(notes)
    finally:
        for group in (process.pid, *alive(notes)):  # each process has a session of its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        process.wait()
    logs = [next(notes.glob(f"*/attempt_0/{rank}")) for rank in (0, 1)]
    texts = [[(log / f"std{kind}.log").read_text() for log in logs] for kind in ("err", "out")]
    return Ended(code, *texts)


def command_for(folder, pictures, batch=2):
    """`picme train` of a tiny run in `folder`/run, as arguments."""
    (folder / "run.toml").write_text(TOML.format(batch=batch))
    places = ("--data", pictures, "--val", pictures, "--out", folder / "run")
    return [str(one) for one in ("train", folder / "run.toml", *places)]


@contextlib.contextmanager
def logged_at_every_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        yield


def ours(text):
    """The lines that are picme's own."""
    return [line for line in text.splitlines() if line.startswith("picme: ")]


def losses_of(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


# What is computed


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """By preset: what one process computes, and what each of two does."""
    folder = tmp_path_factory.mktemp("steps")
    assert torchrun(folder, "steps", folder).code == 0
    with in_float64():
        exact = {preset: few_steps(preset) for preset in PRESETS}
    return {
        preset: [exact[preset]]
        + [load_file(folder / f"{preset}_{rank}.safetensors") for rank in (0, 1)]
        for preset in PRESETS
    }


def difference(one, other, prefix):
    """Relative to the norm of all tensors whose names begin with `prefix`."""
    names = [name for name in one if name.startswith(prefix)]
    assert names
    first, second = (torch.cat([f[n].double().flatten() for n in names]) for f in (one, other))
    return float((first - second).norm() / first.norm())


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("network", ["model", "judge"])
def test_the_gradients_of_two_processes_are_those_of_one_at_the_joint_batch(both, preset, network):
    one, *two = both[preset]
    for found in two:
        assert difference(one, found, f"grad.{network}.") < 1e-12


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_logged_losses_are_the_joint_batch_s(both, preset):
    one, *two = both[preset]
    for found in two:
        for name in (name for name in one if name.startswith("term.")):
            torch.testing.assert_close(found[name], one[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_after_some_steps_both_processes_hold_the_same_to_the_bit(both, preset):
    _, first, second = both[preset]
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_after_some_steps_two_processes_are_where_one_is(both, preset):
    one, two, _ = both[preset]
    for part in ("model.", "ema.", "judge."):
        assert difference(one, two, part) < 1e-12


# What is written


@pytest.fixture(scope="module")
def unbroken(picture_folder, tmp_path_factory):
    """The folder of the run that one process makes from beginning to end."""
    out = tmp_path_factory.mktemp("unbroken")
    with logged_at_every_step():
        assert main(command_for(out, picture_folder)) == 0
    return out / "run"


def test_two_processes_go_on_with_the_run_of_one_and_the_first_alone_writes(
    unbroken, tmp_path, picture_folder
):
    command = command_for(tmp_path, picture_folder)
    shutil.copytree(unbroken, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000004")
    ended = torchrun(tmp_path, "picme", *command, "--resume")
    assert ended.code == 0, ended.errors
    place = tmp_path / "run" / "checkpoints" / "step_00000004"
    assert ended.outputs == [f"{place}\n", ""]
    assert ended.errors[1] == ""
    assert checkpoint.describe(place).pictures == 8
    assert len(list((tmp_path / "run").glob("events.*"))) == 2  # one more

    again, before = losses_of(tmp_path / "run"), losses_of(unbroken)
    assert [line["step"] for line in again] == [1, 2, 3, 4]
    for line, expected in zip(again, before, strict=True):
        rest = {name: pytest.approx(expected[name], rel=0.02, abs=2e-3) for name in expected}
        assert line == rest | {"images/s": line["images/s"]}


# How a run ends


def test_a_batch_that_two_processes_cannot_share_is_refused_in_one_line(tmp_path, picture_folder):
    ended = torchrun(tmp_path, "picme", *command_for(tmp_path, picture_folder, batch=3))
    assert ended.code == 1
    assert ended.errors == [
        "picme: schedule.batch must be a multiple of the number of processes, got 3 for 2; "
        "set batch = 4, or start another number of them\n",
        "",
    ]


def test_what_the_first_process_refuses_ends_all_with_its_one_line(
    unbroken, tmp_path, picture_folder
):
    (tmp_path / "run").symlink_to(unbroken)
    command = command_for(tmp_path, picture_folder, batch=4)
    ended = torchrun(tmp_path, "picme", *command, "--resume")
    assert ended.code == 1
    (line,) = ours(ended.errors[0])
    assert "another configuration: schedule.batch = 2, not 4; resume with the same TOML" in line
    assert "Traceback" not in ended.errors[0]
    assert ended.errors[1] == ""


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_run_whose_process_ends_too_early_ends_at_once_and_can_go_on(
    how, tmp_path, picture_folder
):
    command, out = command_for(tmp_path, picture_folder), tmp_path / "run"
    ended = torchrun(tmp_path, how, *command)
    assert ended.code != 0
    (line,) = ours(ended.errors[0])
    if how == "killed":
        assert (
            line == f"picme: {ENDED} {out / 'checkpoints' / 'step_00000002'}; go on with --resume"
        )
    assert ours(ended.errors[1]) == []
    assert "Traceback" not in "".join(ended.errors)

    # one process goes on
    assert main([*command, "--resume"]) == 0
    assert checkpoint.describe(checkpoint.find(out)).step == 4


def test_a_process_that_waits_for_nobody_ends_with_one_line_too(tmp_path, picture_folder):
    ended = torchrun(tmp_path, "killed-beside-work", *command_for(tmp_path, picture_folder))
    assert ended.code != 0
    assert len(ours(ended.errors[0])) == 1
    assert ENDED in ended.errors[0]
    assert "Traceback" not in ended.errors[0]


# Alone


def test_one_process_is_the_first_and_owns_every_row(tmp_path):
    rows = torch.arange(6.0)
    assert (distributed.rank(), distributed.count()) == (0, 1)
    assert torch.equal(distributed.own(rows), rows)
    assert distributed.gathered(rows) is rows
    assert torch.equal(distributed.total(rows), torch.arange(6.0))
    assert distributed.first(lambda: 3) == 3
    with distributed.joined("cpu:0", tmp_path) as device:
        assert device == "cpu:0"


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("decoded", ["best", "draw", "both"])
def test_every_weight_gets_a_gradient_which_all_processes_wait_for(preset, decoded):
    network = NetworkConfig(preset, 64, 1 if preset == "pic" else 3)
    config = RunConfig(network, ScheduleConfig(1, 2), LossConfig(decoded=decoded))
    trainer = Trainer(config, torch.device("cpu"), None)
    trainer.train_step(torch.zeros(2, 3, 64, 64), torch.ones(2, 1, 64, 64))
    for module in (trainer.model, trainer.judge):
        assert all(weight.grad is not None for weight in module.parameters())


def test_an_error_of_one_process_is_raised_as_it_is():
    with pytest.raises(InputError, match="as it is"), distributed.agreed():
        raise InputError("as it is")


@pytest.mark.parametrize(
    ("device", "error", "text"),
    [
        ("cuda:1", InputError, "device must be cpu or cuda where torchrun starts several"),
        ("cuda", UnavailableError, "process 99 needs a GPU of its own, this machine has"),
    ],
)
def test_a_device_that_processes_cannot_share_is_refused(
    monkeypatch, tmp_path, device, error, text
):
    monkeypatch.setenv("WORLD_SIZE", "100")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(error, match=text), distributed.joined(device, tmp_path):
        pass


# What each process does


def _before_the_third_step(action, of):
    """Lets one of the processes do something."""
    real = Trainer.train_step

    def train_step(self, image, hole):
        if self.step == 2 and distributed.rank() == of:
            action()
        return real(self, image, hole)

    Trainer.train_step = train_step


if __name__ == "__main__":
    torch.set_num_threads(1)
    notes, action, *arguments = sys.argv[1:]
    (Path(notes) / f"{os.getpid()}.pid").touch()
    if action == "steps":
        with distributed.joined("cpu", Path(arguments[0])), in_float64():
            for preset in PRESETS:
                place = Path(arguments[0]) / f"{preset}_{distributed.rank()}.safetensors"
                save_file(few_steps(preset), place)
        raise SystemExit
    if action.startswith("killed"):
        _before_the_third_step(lambda: os.kill(os.getpid(), signal.SIGKILL), of=1)
    if action == "killed-beside-work":  # the first one hears of it by torchrun's signal alone
        _before_the_third_step(lambda: time.sleep(PATIENCE), of=0)
    if action == "interrupted":  # as Ctrl-C does
        _before_the_third_step(lambda: os.kill(os.getppid(), signal.SIGINT), of=1)
    with logged_at_every_step():
        raise SystemExit(main(arguments))
