"""Bytes in, bytes out on one device: the same code as on a GPU, on the CPU."""

import dataclasses

import numpy as np
import pytest
import torch

import picme_rt
from picme_rt import backends, encoded, kernels, torch_model
from picme_rt import engine as engines
from picme_rt.backends import graphs, torch_launches, torch_pipeline, torch_recording
from picme_rt.backends import torch as torch_backend
from picme_rt.errors import ClosedError, EngineError, InputError, UnavailableError

N = 3  # latents a run
ON_CPU = torch.device("cpu")


class Recording(torch_recording.OnCpu):
    """A recorder that fails where a CUDA graph would: work outside of its stream, other tensors."""

    def __init__(self):
        super().__init__(1)
        self.log, self.inside = [], False

    def record(self, call, precision):
        assert not self.inside, "a capture takes the stream itself"
        super().record(call, precision)()  # the warm-up
        replay, number = super().record(call, precision), len(self.log)
        self.log.append(f"recorded {number} in {precision}")

        def replayed():
            assert self.inside, "a replay outside of its stream"
            self.log.append(f"replayed {number}")
            replay()

        return replayed

    def queueing(self):
        outer = super().queueing()
        recorder = self

        class Queueing:
            def __enter__(self):
                assert not recorder.inside
                outer.__enter__()
                recorder.inside = True

            def __exit__(self, *error):
                recorder.inside = False
                return outer.__exit__(*error)

        return Queueing()

    def wait(self):
        assert self.inside
        self.log.append("waited")


@pytest.fixture(scope="module")
def recorder():
    return Recording()


@pytest.fixture(scope="module")
def pipeline(engine, recorder):
    return pipeline_of(engine, recorder)


def pipeline_of(path, recorder, *, pictures=1, precision="fp32"):
    loaded = engines.load(path)
    settings = dataclasses.replace(backends.defaults("torch", "fp32"), precision=precision)
    checked = graphs.read(loaded, "fp32")
    return torch_pipeline.Pipeline(
        *torch_backend.networks(checked, settings),
        loaded.tables,
        rows=torch_backend.whole(checked),
        pictures=pictures,
        latents=N,
        recorder=recorder,
        launches=torch_launches.OnHost(),
    )


def model_of(path, pipeline):
    settings = dataclasses.replace(backends.defaults("torch", "fp32"), micro_batch=N)
    chosen = backends.Chosen(settings, "asked")
    return torch_model.TorchModel(engines.load(path), chosen, pipeline)


@pytest.fixture
def model(engine, pipeline):
    return model_of(engine, pipeline)


def test_results_are_those_of_the_cpu_within_a_level(model, session, picture):
    image, mask = picture
    hole = mask > 0
    got = model.encode(image, hole).complete(k=4, seed=9, first=2)
    want = session.encode(image, hole).complete(k=4, seed=9, first=2)
    assert (got.images[:, ~hole] == image[~hole]).all()
    assert np.abs(got.images.astype(int) - want.images).max() <= 1
    assert (got.images[0] != got.images[1]).any()
    assert (got.indices == want.indices).all()
    assert (got.primitives == want.primitives).all()
    np.testing.assert_allclose(got.log_prob, want.log_prob, rtol=1e-4)
    assert model.info().sampler == torch_launches.OnHost.name


def test_result_i_depends_on_neither_k_nor_first_nor_who_asks(model, picture):
    image, mask = picture
    prepared = model.encode(image, mask > 0)
    every = prepared.complete(k=7, seed=1)
    for k, first in ((1, 0), (1, 4), (4, 2), (2, 5)):
        some = prepared.complete(k=k, seed=1, first=first)
        for name, value in some._asdict().items():
            assert (value == getattr(every, name)[first : first + k]).all(), name
    for one in prepared.stream(k=5, seed=1, first=1):
        assert (one.image == every.images[one.index]).all()
        assert one.image.base is None  # memory of its own, so a kept result keeps no others
        assert (one.primitive, one.log_prob) == (
            every.primitives[one.index],
            every.log_prob[one.index],
        )


def test_bytes_under_the_hole_are_never_read(model, picture):
    image, mask = picture
    other = np.where((mask > 0)[..., None], 255 - image, image)
    one, two = (model.encode(img, mask > 0).complete(k=2).images for img in (image, other))
    assert (one == two).all()


def test_pictures_between_a_call_and_the_next_change_nothing(model, picture):
    image, mask = picture
    prepared = model.encode(image, mask > 0)
    want = prepared.complete(k=3, seed=2).images
    model.encode(image[::-1].copy(), mask > 0).complete(k=3)
    assert (prepared.complete(k=3, seed=2).images == want).all()


def test_modes_primitives_and_temperature_reach_the_sampler(model, session, picture):
    image, mask = picture
    got, want = (who.encode(image, mask > 0) for who in (model, session))
    for asked in (
        {"mode": "per_primitive"},
        {"mode": "mean"},
        {"primitive": 2, "temperature": 0.5},
    ):
        one, other = (who.complete(k=3, **asked) for who in (got, want))
        assert (one.primitives == other.primitives).all()
        assert np.abs(one.images.astype(int) - other.images).max() <= 1
    with pytest.raises(InputError, match="k must be"):
        got.complete(k=0)
    with pytest.raises(InputError, match="seed must be"):
        next(got.stream(seed=-1))


def test_the_last_index_of_all_is_drawn(model, picture):
    image, mask = picture
    prepared = model.encode(image, mask > 0)
    last = prepared.complete(k=2, first=(1 << 32) - 2)
    assert (prepared.complete(k=1, first=(1 << 32) - 1).images == last.images[1:]).all()


def test_an_empty_hole_gives_copies(model, picture):
    image, mask = picture
    prepared = model.encode(image, np.zeros(mask.shape, bool))
    done = prepared.complete(k=2, first=3)
    assert (done.images == image).all()
    assert done.indices.tolist() == [3, 4]
    assert done.primitives is done.log_prob is prepared.mixture is None


def test_holes_far_apart_are_completed_apart(free_engine, pipeline):
    img = np.random.default_rng(0).integers(0, 256, (80, 700, 3), np.uint8)
    hole = np.zeros(img.shape[:2], bool)
    hole[30:50, 20:50] = hole[30:50, 640:680] = True
    prepared = model_of(free_engine, pipeline).encode(img, hole)
    assert len(prepared._layers) == 2
    got = prepared.complete(k=4, first=1)
    with picme_rt.Session(free_engine, backend="onnxruntime") as session:
        want = session.encode(img, hole)
        done = want.complete(k=4, first=1)
        np.testing.assert_allclose(prepared.mixture.mu, want.mixture.mu, atol=1e-4)
    assert (got.images[:, ~hole] == img[~hole]).all()
    assert np.abs(got.images.astype(int) - done.images).max() <= 1
    assert (got.primitives == done.primitives).all()
    np.testing.assert_allclose(got.log_prob, done.log_prob, rtol=1e-4)


def test_a_block_is_queued_at_once_and_waited_for_once(model, recorder, picture):
    image, mask = picture
    assert recorder.log[:2] == ["recorded 0 in fp32", "recorded 1 in fp32"]
    del recorder.log[:]
    prepared = model.encode(image, mask > 0)
    assert recorder.log == ["replayed 0"]
    del recorder.log[:]
    prepared.complete(k=2 * N)
    assert recorder.log == ["replayed 1", "waited"] * 2


def test_a_batch_of_pictures_is_each_of_them_alone(engine, pipeline, picture):
    image, mask = picture
    loaded = engines.load(engine)
    wide = pipeline_of(engine, Recording(), pictures=2)
    images = np.stack([image, image[:, ::-1]])
    seeds = np.array([3, 4], np.uint64)
    asked = encoded.Request(N, 0, 0, "categorical", None, 1.0)
    fitted = [torch_model.fitted(one, mask > 0, loaded) for one in images]
    ((fits, canvases),) = [tuple(zip(*(one[0] for one in fitted), strict=True))]
    block = wide.complete([wide.encode(fits, canvases)], images, asked, seeds, range(N))
    assert block.images.shape == (2, N, *image.shape)
    for b in range(2):
        layer = pipeline.encode([fits[b]], [canvases[b]])
        alone = pipeline.complete([layer], images[b][None], asked, seeds[b : b + 1], range(N))
        assert np.abs(block.images[b].astype(int) - alone.images[0]).max() <= 1
        assert (block.primitive[b] == alone.primitive[0]).all()


def test_half_precision_draws_the_same_and_looks_the_same(engine, model, picture):
    image, mask = picture
    half = model_of(engine, pipeline_of(engine, Recording(), precision="fp16"))
    got, want = (one.encode(image, mask > 0).complete(k=2) for one in (half, model))
    assert (got.primitives == want.primitives).all()
    assert (got.log_prob == want.log_prob).all()
    difference = np.abs(got.images.astype(int) - want.images)[:, mask > 0]
    assert 0 < difference.mean() < 1
    assert np.percentile(difference, 99.9) <= 5


@pytest.mark.parametrize(("log_alpha", "pictures"), [(np.nan, 0), (81, 0), (0, np.nan), (0, 1.5)])
def test_what_no_network_gives_is_refused(
    model, pipeline, picture, monkeypatch, log_alpha, pictures
):
    image, mask = picture
    block = pipeline.complete
    worst = (log_alpha, pictures)
    monkeypatch.setattr(pipeline, "complete", lambda *a: block(*a)._replace(extremes=worst))
    with pytest.raises(EngineError, match="export it again"):
        model.encode(image, mask > 0).complete(k=1)


def test_the_extremes_are_those_of_this_call(pipeline, engine, picture):
    image, mask = picture
    loaded = engines.load(engine)
    ((fit, canvas),) = torch_model.fitted(image, mask > 0, loaded)
    layer = pipeline.encode([fit], [canvas])
    asked = encoded.Request(1, 0, 0, "mean", None, 1.0)
    call = ([layer], image[None], asked, np.zeros(1, np.uint64), range(1))
    usual = pipeline.complete(*call).extremes
    assert 0 < usual[1] <= 1
    kept = {name: value.clone() for name, value in layer.values.items()}
    layer.values["log_alpha"].fill_(-5)
    layer.values["f_0"][0, 0, 0, 0] = torch.nan
    worst = pipeline.complete(*call).extremes
    assert worst[0] == 5
    assert np.isnan(worst[1])
    for name, value in kept.items():
        layer.values[name].copy_(value)
    assert pipeline.complete(*call).extremes == usual


@pytest.mark.parametrize("call", ["complete", "encode"])
def test_what_torch_raises_is_one_error(model, recorder, picture, monkeypatch, call):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    image, hole = picture[0], picture[1] > 0
    prepared = model.encode(image, hole)
    ask = {"complete": lambda: prepared.complete(k=1), "encode": lambda: model.encode(image, hole)}
    monkeypatch.setattr(type(recorder), "queueing", full)
    with pytest.raises(UnavailableError, match=r"torch did not compute .* of memory\. Tried to"):
        ask[call]()


def test_what_is_closed_says_so(engine, pipeline, picture):
    image, mask = picture
    closed = model_of(engine, pipeline)
    prepared = closed.encode(image, mask > 0)
    closed.close()
    for call in (closed.info, lambda: closed.encode(image, mask > 0), prepared.complete):
        with pytest.raises(ClosedError, match="is closed"):
            call()


def test_on_a_gpu_both_kernels_get_the_tensors_as_they_lie(model, pipeline, picture, monkeypatch):
    """The launches of a GPU, up to our kernels, for which those of the CPU stand in."""

    class Stream:
        cuda_stream = 77

    def sample(log_alpha, mu, log_sigma, seeds, *, stream, out_z, out_primitive, out_log_prob, **o):
        assert stream == 77
        parts = (part.numpy() for part in (log_alpha, mu, log_sigma, seeds))
        drawn = kernels.sample_gmm(*parts, **o)
        for place, found in zip((out_z, out_primitive, out_log_prob), drawn, strict=True):
            assert place.is_contiguous()
            place.copy_(torch.from_numpy(found))

    def composite(pictures, originals, canvases, packed, *, out, scratch, stream):
        assert stream == 77
        assert pictures.is_contiguous()
        assert out.is_contiguous()
        assert tuple(scratch.shape) == canvases.scratch_shape(pictures.shape[1])
        assert (packed.numpy() == canvases.data).all()
        held = None if originals is None else originals.numpy()
        kernels.composite(pictures.numpy(), held, Stream.canvases, out=out.numpy())

    image, mask = picture
    prepared = model.encode(image, mask > 0)
    Stream.canvases = prepared._layers[0].frames.canvases
    want = prepared.complete(k=4, first=1, mode="per_primitive", temperature=0.7)
    monkeypatch.setattr(torch_launches, "sample_gmm_cuda", sample)
    monkeypatch.setattr(torch_launches, "composite_cuda", composite)
    monkeypatch.setattr(pipeline, "launches", torch_launches.OnGpu(Stream()))
    got = prepared.complete(k=4, first=1, mode="per_primitive", temperature=0.7)
    for one, other in zip(got, want, strict=True):
        assert (one == other).all()
    assert model.info().composite == "cuda"


def test_bfloat16_goes_to_our_kernel_as_its_bits(model, picture, monkeypatch):
    class Stream:
        cuda_stream = 1

    image, mask = picture
    (layer,) = model.encode(image, mask > 0)._layers
    taken = []
    monkeypatch.setattr(torch_launches, "composite_cuda", lambda one, *_, **__: taken.append(one))
    made = torch.ones(1, 2, 3, 64, 64, dtype=torch.bfloat16)
    torch_launches.OnGpu(Stream()).paste(made, None, layer.frames, torch.empty(0))
    assert (taken[0].numpy() == 0x3F80).all()


def test_a_session_on_a_gpu_takes_the_pipeline_where_our_kernels_are_built_for_it(
    engine, monkeypatch, picture
):
    image, mask = picture

    def on_the_cpu(place):
        recorder = Recording()
        recorder.stream = None
        return recorder

    monkeypatch.setattr(torch_backend, "check", lambda device, precision: None)
    monkeypatch.setattr(torch_recording, "OnCuda", on_the_cpu)
    monkeypatch.setattr(torch_launches, "OnGpu", lambda stream: torch_launches.OnHost())
    monkeypatch.setattr(torch, "device", lambda name: ON_CPU)
    monkeypatch.setattr(kernels, "cuda_is_built", lambda: True)
    with picme_rt.Session(engine, backend="torch", device="cuda:1", precision="fp16") as session:
        info = session.info
        assert (info.backend, info.device, info.precision) == ("torch", "cuda:1", "fp16")
        assert info.micro_batch == 6
        assert set(info.sha256) == {"fp32/encoder.onnx", "fp32/decoder.onnx"}
        batch = session.complete_batch([image, image], [mask, mask], k=2, seed=[1, 2])
        one = session.complete(image, mask, k=2, seed=2)
    assert (batch[1].images == one.images).all()
