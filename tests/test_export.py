"""Export: what the engine gives is what torch gives, and nothing half done is ever left."""

import copy
import json
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.utils import parametrize

import picme_rt
from picme_export import export, graphs, verify
from picme_rt import atomic, cli
from picme_rt import engine as engines
from picme_rt.errors import InputError
from picme_rt.framing import Box
from picme_rt.windows import windows
from picme_training import checkpoint
from picme_training.config import NetworkConfig, RunConfig, ScheduleConfig
from picme_training.networks import Picme, fold

ROLES = ("encoder", "decoder")
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"} | {
    "Multinomial", "Bernoulli", "Dropout",
}  # fmt: skip


@pytest.fixture(scope="module", params=["picme", "pic", "cats"])
def tiny(request, exported):
    return exported(request.param)


def graph_of(tiny, role):
    return onnx.load(tiny.path / "fp32" / f"{role}.onnx")


def pictures(batch, seed=0):
    """Pictures in [-1, 1] and holes of one rectangle each, as training has them."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, (batch, 3, 64, 64)).astype(np.float32)
    hole = np.zeros((batch, 1, 64, 64), np.float32)
    for one in hole:
        top, left = rng.integers(0, 40, 2)
        one[:, top : top + 24, left : left + 20] = 1
    return torch.from_numpy(image), torch.from_numpy(hole)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_both_graphs_in_a_row_give_what_torch_gives(tiny, batch):
    """Real pictures through encoder and decoder, not the exporter's random inputs."""
    image, hole = pictures(batch)
    tables = engines.load(tiny.path).tables
    run = {
        role: onnxruntime.InferenceSession(
            tiny.path / "fp32" / f"{role}.onnx", providers=["CPUExecutionProvider"]
        )
        for role in ROLES
    }
    names = [t.name for t in tables.encoder.outputs]
    values = run["encoder"].run(names, {"image": image.numpy(), "hole": hole.numpy()})
    found = dict(zip(names, values, strict=True))
    z = found["mu"][:, -1] + 0.5 * np.exp(found["log_sigma"][:, -1])
    inputs = {**found, "z": z, "hole": hole.numpy()}
    whole = windows(64, engines.load(tiny.path).crops, Box(0, 0, 64, 64))
    inputs["box"] = whole.rows
    wanted = {t.name: inputs[t.name] for t in tables.decoder.inputs}
    (picture,) = run["decoder"].run(["picture"], wanted)

    with torch.no_grad():
        encoding, mixture = tiny.model.encode(image, hole)
        for name, value in mixture._asdict().items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)
        for i, value in enumerate(encoding.features):
            np.testing.assert_allclose(found[f"f_{i}"], value, rtol=1e-4, atol=1e-4)
        z_m = None if encoding.z_m is None else encoding.z_m.mu
        expected = tiny.model.decode(torch.from_numpy(z), z_m, encoding.features, hole)[-1]
    assert picture.shape == (batch, 3, 64, 64)
    np.testing.assert_allclose(picture, expected, atol=1e-4)
    assert picture.std() > 0.05  # a network that says something


def test_the_errors_against_torch_are_small_and_kept_in_the_engine(tiny):
    assert set(tiny.errors) == set(ROLES)
    for by_batch in tiny.errors.values():
        assert set(by_batch) == {"batch_1", "batch_2", "batch_7"}
        assert all(0 <= error <= 1e-4 for error in by_batch.values())
    assert engines.load(tiny.path).provenance["parity"] == tiny.errors


@pytest.mark.parametrize("name", ["decoder.attention.gamma", "decoder.attention.alpha"])
def test_the_attention_of_the_tiny_networks_matters(exported, name):
    """Else parity could not see it: with gamma or alpha at 0 the picture is another."""
    model = copy.deepcopy(exported("picme").model)
    image, hole = pictures(1)
    z = torch.zeros(1, model.latent_dim)
    encoding, _ = model.encode(image, hole)
    first = model.decode(z, encoding.z_m.mu, encoding.features, hole)[-1]
    model.get_parameter(name).zero_()
    other = model.decode(z, encoding.z_m.mu, encoding.features, hole)[-1]
    assert (first - other).abs().max() > 1e-2


@pytest.mark.parametrize("preset", ["picme", "pic"])
def test_folding_takes_spectral_norm_away_and_changes_nothing(tiny_model, preset):
    model = tiny_model(preset, seed=1)
    image, hole = pictures(2)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, model.latent_dim, generator=generator)

    def everything():
        encoding, mixture = model.encode(image, hole)
        z_m = None if encoding.z_m is None else encoding.z_m.mu
        return *mixture, *encoding.features, *model.decode(z, z_m, encoding.features, hole)

    with torch.no_grad():
        assert any(parametrize.is_parametrized(module) for module in model.modules())
        before = everything()
        fold(model)
        after = everything()
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert not any("parametrizations" in name for name in model.state_dict())
    assert not any(weight.requires_grad for weight in model.parameters())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("role", ROLES)
def test_no_operator_draws_random_numbers(tiny, role):
    operators = {node.op_type for node in graph_of(tiny, role).graph.node}
    assert operators
    assert not operators & RANDOM


@pytest.mark.parametrize("role", ROLES)
def test_a_graph_holds_nothing_of_the_machine_that_made_it(tiny, role):
    bare = graph_of(tiny, role)
    for weight in bare.graph.initializer:
        weight.ClearField("raw_data")  # millions of random bytes hold any short text
    content = bare.SerializeToString()
    homes = {torch.__file__, picme_rt.__file__, export.__file__, str(tiny.path)}
    known = {"/".join(home.split("/")[:3]) for home in homes} | {"/home/", "/root/", "/usr/"}
    for text in {*known, "site-packages", ".py"}:
        assert text.encode() not in content, text
    model = graph_of(tiny, role)
    graph = model.graph
    for entry in (
        model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output,
        *graph.value_info,
    ):  # fmt: skip
        assert not entry.metadata_props
        assert not entry.doc_string
    assert not model.functions
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in graph.initializer)


@pytest.mark.parametrize("role", ROLES)
def test_the_batch_and_the_sides_of_a_box_are_free_and_all_others_are_fixed(tiny, role):
    graph, table = graph_of(tiny, role).graph, getattr(engines.load(tiny.path).tables, role)
    for values, tensors in ((graph.input, table.inputs), (graph.output, table.outputs)):
        assert [value.name for value in values] == [t.name for t in tensors]
        for value, tensor in zip(values, tensors, strict=True):
            axes = value.type.tensor_type.shape.dim
            assert tuple(axis.dim_param or axis.dim_value for axis in axes) == tensor.axes
            assert tensor.axes[0] == "B" or tensor.name == "box"
            kinds = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
            assert value.type.tensor_type.elem_type == kinds[tensor.kind]


@pytest.mark.parametrize("role", ROLES)
def test_a_graph_needs_no_newer_operators_than_the_format_says(tiny, role):
    versions = {entry.domain: entry.version for entry in graph_of(tiny, role).opset_import}
    assert versions == {"": graphs.OPSET}


def test_a_graph_holds_the_weights_of_its_own_half_alone(tiny):
    sizes = {role: (tiny.path / "fp32" / f"{role}.onnx").stat().st_size for role in ROLES}
    weights = 4 * sum(weight.numel() for weight in tiny.model.parameters())
    assert sum(sizes.values()) < 1.1 * weights


def test_an_engine_that_exists_is_kept_unless_forced(exported, quick, tmp_path):
    target = tmp_path / "engine"
    target.mkdir()
    (target / "engine.json").write_text("old")
    with pytest.raises(InputError, match=r"engine exists; pass --force"):
        export.write(exported("cats").model, target, name="new")
    assert [p.name for p in tmp_path.rglob("*")] == ["engine", "engine.json"]
    assert (target / "engine.json").read_text() == "old"
    export.write(exported("cats").model, target, name="new", force=True)
    assert engines.load(target).name == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]


def test_a_folder_that_is_no_engine_is_not_replaced_even_by_force(exported, quick, tmp_path):
    (tmp_path / "precious").write_text("kept")
    with pytest.raises(InputError, match="is no engine"):
        export.write(exported("cats").model, tmp_path, name="new", force=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["precious"]


def test_a_graph_that_differs_from_torch_is_not_written(quick, tiny_model, tmp_path):
    """The graphs of one network are compared with another network."""
    other = tiny_model("cats", seed=1)
    with pytest.raises(verify.ParityError, match=r"encoder\.onnx differs from torch by .* batch 1"):
        export.write(other, tmp_path / "engine", name="wrong")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ROLES)
def test_a_graph_with_one_wrong_weight_fails_parity(exported, tmp_path, role):
    cats = exported("cats")
    loaded, graph = graph_of(cats, role), getattr(engines.load(cats.path).tables, role)
    bias = next(t for t in loaded.graph.initializer if t.name.endswith("bias"))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 0.01
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(loaded, tmp_path / f"{role}.onnx")
    module = (
        graphs.EncoderGraph(cats.model)
        if role == "encoder"
        else graphs.DecoderGraph(cats.model, z_m=True)
    )
    with pytest.raises(verify.ParityError, match="differs from torch"):
        verify.parity(cats.model, module, graph, tmp_path / f"{role}.onnx")


def test_nan_is_never_within_tolerance(exported, tmp_path):
    cats = exported("cats")
    model = copy.deepcopy(cats.model)
    model.decoder.colours.bias.fill_(torch.nan)
    graph = engines.load(cats.path).tables.decoder
    with pytest.raises(verify.ParityError):
        verify.parity(
            model, graphs.DecoderGraph(model, z_m=True), graph, cats.path / "fp32" / "decoder.onnx"
        )


def test_nan_in_any_output_is_never_within_tolerance(exported, tmp_path):
    """`max` of Python forgets a NaN that does not come first."""
    cats = exported("cats")
    model = copy.deepcopy(cats.model)
    model.latent.mu[-1].bias.data.fill_(torch.nan)
    graph = engines.load(cats.path).tables.encoder
    encoder, path = graphs.EncoderGraph(model), cats.path / "fp32" / "encoder.onnx"
    assert graph.outputs[0].name != "mu"
    with pytest.raises(verify.ParityError, match="differs from torch by nan"):
        verify.parity(model, encoder, graph, path)


@pytest.mark.parametrize("force", [False, True])
def test_an_interrupted_export_leaves_what_was_there(exported, monkeypatch, tmp_path, force):
    cats, target = exported("cats"), tmp_path / "engine"
    if force:
        shutil.copytree(cats.path, target)
    before = sorted(tmp_path.rglob("*"))

    def stop(module, graph, path, *, target, half):
        path.write_bytes(b"half a graph")
        raise KeyboardInterrupt

    monkeypatch.setattr(graphs, "to_onnx", stop)
    with pytest.raises(KeyboardInterrupt):
        export.write(cats.model, target, name="new", force=force)
    assert sorted(tmp_path.rglob("*")) == before
    if force:
        with picme_rt.Session(target) as kept:
            assert kept.info.name == "cats"


def test_an_export_that_fails_at_its_last_step_gives_the_old_engine_back(
    exported, quick, monkeypatch, tmp_path
):
    target = shutil.copytree(exported("cats").path, tmp_path / "engine")
    rename = pathlib.Path.rename

    def full(self, place):
        if pathlib.Path(place) == target and self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, place)

    monkeypatch.setattr(pathlib.Path, "rename", full)
    monkeypatch.setattr(atomic, "_swap", lambda one, other: False)  # else nothing is renamed
    with pytest.raises(OSError, match="No space"):
        export.write(exported("cats").model, target, name="new", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]
    assert engines.load(target).name == "cats"


@pytest.fixture
def run(exported, tmp_path):
    """A run with one checkpoint, whose averaged weights are the tiny `cats` network's."""
    live = Picme(NetworkConfig("cats", 64, 6))
    discriminator = torch.nn.Linear(1, 1)
    optimizers = {"d": torch.optim.Adam(discriminator.parameters())}
    state = checkpoint.State(live, exported("cats").model, discriminator, optimizers)
    config = RunConfig(live.config, ScheduleConfig(steps=300, batch=4))
    checkpoint.save(tmp_path / "run", checkpoint.Description(config, 300, 1200), state)
    return tmp_path / "run"


def test_the_averaged_weights_of_a_checkpoint_become_the_engine(quick, run, tmp_path, capsys):
    """Through the command line; the graphs are those of the averaged weights, so parity holds."""
    card = tmp_path / "card.md"
    card.write_text("# Card\n")
    target = tmp_path / "engines" / "cats64"
    about = ["--data", "cats", "--licence", "CC0", "--commit", "abc"]
    command = ["export", str(run), "-o", str(target), "--card", str(card), *about]
    assert cli.main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engine"] == str(target)
    loaded = engines.load(target)
    assert loaded.name == "cats64"
    assert loaded.provenance["parity"] == report["parity"]
    entries = {
        "checkpoint_step": 300,
        "pictures_seen": 1200,
        "data": "cats",
        "licence": "CC0",
        "commit": "abc",
    }
    assert entries.items() <= loaded.provenance.items()
    assert loaded.provenance["config"]["network"]["preset"] == "cats"
    assert loaded.read("MODEL_CARD.md") == b"# Card\n"
    with picme_rt.Session(target) as opened:
        assert opened.info.provenance["licence"] == "CC0"

    assert cli.main(command) == 1
    assert "exists; pass --force" in capsys.readouterr().err
    assert cli.main([*command, "--force", "--name", "other"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(target)
    assert engines.load(target).name == "other"


def test_a_card_that_is_none_is_one_line_before_the_export(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "export", lambda *_, **__: pytest.fail("was exported"))
    for card in (tmp_path / "none.md", tmp_path):
        command = ["export", str(run), "-o", str(tmp_path / "engine"), "--card", str(card)]
        assert cli.main(command) == 1
        assert f"--card must be a Markdown file, got {card}\n" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_one_line(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), "-o", str(tmp_path / "engine")]) == 1
    assert "neither a checkpoint nor a run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
