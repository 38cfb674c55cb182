"""A repository for Triton, read as the server reads it: its proto, its ensemble step by step."""

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

from picme_export import triton
from picme_rt import atomic, cli
from picme_rt.errors import InputError
from picme_rt.noise import noise

TYPES = {
    model_config_pb2.TYPE_UINT8: TensorProto.UINT8,
    model_config_pb2.TYPE_INT64: TensorProto.INT64,
    model_config_pb2.TYPE_FP32: TensorProto.FLOAT,
}
GRAPHS = ("encoder", "sampler", "decoder", "pipeline")


@pytest.fixture(scope="module")
def repository(engine, tmp_path_factory):
    place = tmp_path_factory.mktemp("triton") / "models"
    assert cli.main(["export", str(engine), "--target", "triton", "-o", str(place)]) == 0
    return place


def config(repository, name):
    text = (repository / name / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def declared(tensors):
    """Names, types and shapes that a configuration gives."""
    return [(one.name, TYPES[one.data_type], list(one.dims)) for one in tensors]


def exported(values):
    """The same of a graph; a side with a name is free."""
    return [
        (
            one.name,
            one.type.tensor_type.elem_type,
            [
                d.dim_value if d.HasField("dim_value") else -1
                for d in one.type.tensor_type.shape.dim
            ],
        )
        for one in values
    ]


def run_model(repository, name, tensors):
    """One model's outputs by name, by its newest version."""
    newest = max(
        (p for p in (repository / name).iterdir() if p.is_dir()), key=lambda p: int(p.name)
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        newest / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, tensors), strict=True))


def run_ensemble(repository, name, tensors):
    """What the server's scheduler does: each step once its tensors are there."""
    about, known = config(repository, name), dict(tensors)
    waiting = list(about.ensemble_scheduling.step)
    while waiting:
        ready = next(s for s in waiting if set(s.input_map.values()) <= set(known))
        waiting.remove(ready)
        assert ready.model_version == -1  # the newest
        given = {inner: known[outer] for inner, outer in ready.input_map.items()}
        found = run_model(repository, ready.model_name, given)
        known |= {outer: found[inner] for inner, outer in ready.output_map.items()}
    return {one.name: known[one.name] for one in about.output}


def test_every_model_lies_where_the_server_looks(repository):
    models = {path.name for path in repository.iterdir()}
    assert models == {"cats", *(f"cats_{part}" for part in GRAPHS)}
    for name in models:
        assert config(repository, name).name == name
        files = {
            p.relative_to(repository / name).as_posix() for p in (repository / name).rglob("*")
        }
        own = set() if name == "cats" else {"1/model.onnx"}
        assert files == {"config.pbtxt", "1"} | own


@pytest.mark.parametrize("part", GRAPHS)
def test_a_configuration_says_what_its_graph_has(repository, part):
    about = config(repository, f"cats_{part}")
    graph = onnx.load(repository / f"cats_{part}" / "1" / "model.onnx").graph
    assert declared(about.input) == exported(graph.input)
    assert declared(about.output) == exported(graph.output)
    assert all(one.dims for one in (*about.input, *about.output))  # the server takes no scalars
    assert (about.backend, about.max_batch_size) == ("onnxruntime", 0)


def test_the_ensemble_joins_tensors_of_one_type_and_shape(repository):
    about, whole = config(repository, "cats"), config(repository, "cats_pipeline")
    assert (about.platform, about.max_batch_size) == ("ensemble", 0)
    assert declared(about.input) == declared(whole.input)
    assert declared(about.output) == declared(whole.output)
    known = {one[0]: one for one in declared(about.input)}
    for step in about.ensemble_scheduling.step:
        model = config(repository, step.model_name)
        inputs = {one[0]: one for one in declared(model.input)}
        outputs = {one[0]: one for one in declared(model.output)}
        assert set(step.input_map) == set(inputs)  # the server wants every input
        assert set(step.output_map) <= set(outputs)
        for inner, outer in step.input_map.items():
            assert known[outer][1:] == inputs[inner][1:]
        known |= {outer: outputs[inner] for inner, outer in step.output_map.items()}
    assert {one[0] for one in declared(about.output)} <= set(known)


def test_the_ensemble_and_the_pipeline_give_the_pictures_of_a_session(repository, session, picture):
    img, mask = picture
    drawn = noise(4, latent=session.info.latent, k=3)
    tensors = {"image": img, "mask": mask, **drawn._asdict()}
    joined = run_ensemble(repository, "cats", tensors)
    whole = run_model(repository, "cats_pipeline", tensors)
    assert set(joined) == set(whole) == {"pictures", "primitives"}
    for name, value in joined.items():
        assert (value == whole[name]).all()
    wanted = session.complete(img, mask, k=3, seed=4)
    assert np.abs(joined["pictures"].astype(int) - wanted.images).max() <= 1
    assert (joined["pictures"][:, mask == 0] == img[mask == 0]).all()
    assert list(joined["primitives"]) == list(wanted.primitives)


def test_other_models_of_a_repository_stay(repository, engine, tmp_path):
    place = tmp_path / "models"
    (place / "other" / "1").mkdir(parents=True)
    triton.write(engine, place, name="mine")
    assert {p.name for p in place.iterdir()} == {
        "other", "mine", *(f"mine_{part}" for part in GRAPHS)
    }  # fmt: skip
    with pytest.raises(InputError, match="mine exists; pass --force to replace models"):
        triton.write(engine, place, name="mine")
    (place / "mine_sampler" / "1" / "model.onnx").write_bytes(b"")
    triton.write(engine, place, name="mine", force=True)
    assert (place / "mine_sampler" / "1" / "model.onnx").read_bytes()
    (place / "theirs").mkdir()
    (place / "theirs" / triton.CONFIG).write_text('backend: "pytorch"')
    (place / "folder").mkdir()
    for name in ("theirs", "folder"):
        with pytest.raises(InputError, match=f"{name} exists; it is no model of picme's"):
            triton.write(engine, place, name=name, force=True)
    assert (place / "theirs" / triton.CONFIG).read_text() == 'backend: "pytorch"'


def test_a_name_that_is_none_for_a_directory_is_refused(engine, tmp_path):
    for name in ("a/b", "..", "a b"):
        with pytest.raises(InputError, match="name must be letters, digits"):
            triton.write(engine, tmp_path / "models", name=name)
    assert not list(tmp_path.iterdir())


def test_the_ensemble_is_written_after_the_models_that_it_calls(engine, tmp_path, monkeypatch):
    written, directory = [], atomic.directory

    def recorded(place, **options):
        written.append(place.name)
        return directory(place, **options)

    monkeypatch.setattr(atomic, "directory", recorded)
    triton.write(engine, tmp_path, name="mine")
    assert written[-1] == "mine"
    assert len(written) == 5
