"""From an engine to plans for TensorRT or TensorRT-RTX, in a directory that appears whole.

TensorRT-RTX builds ahead of time on a machine without a GPU; TensorRT times its kernels on the GPU
that the plan is for.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from picme_export import device_decoder, half, half_weights
from picme_export.build_progress import BuildProgress
from picme_rt import atomic, cuda_runtime, plans, tensors
from picme_rt import engine as engines
from picme_rt.backends import tensorrt_library
from picme_rt.backends.tensorrt_library import Library
from picme_rt.engine import Engine, File
from picme_rt.errors import EngineError, InputError
from picme_rt.plans import Options, Plans


class Built(NamedTuple):
    """A plan, and the number of layers that the parser made of its graph."""

    content: bytes
    layers: int


def write(
    source: Path,
    *,
    library: str,
    options: Options,
    gpu: str | None = None,
    force: bool = False,
) -> Plans:
    """Builds both plans of an engine, beside its ONNX files.

    Args:
        source: The engine.
        library: `tensorrt` or `tensorrt-rtx`.
        options: What they are built for.
        gpu: One of `plans.RTX_TARGETS` for TensorRT-RTX, or None: `portable`. TensorRT builds for
            the GPU that is here.
        force: Whether plans that are there are replaced.

    Raises:
        EngineError: `source` is no engine, or the library does not take a graph.
        InputError: An option is not as above, or there are such plans already.
        MissingPackageError: The library is not installed.
        UnavailableError: TensorRT finds no GPU.
    """
    engine = engines.load(source)
    opened = tensorrt_library.load(library)
    target = target_of(library, gpu)
    place = source / plans.FOLDER / plans.name(library, opened.version, target, options.precision)
    onnx_of = graphs(engine, options.precision)
    timings = place.with_name(f"{library}-{opened.version}-{target}.timing")
    with atomic.directory(place, force=force) as fresh:
        files, layers = {}, {}
        for role, (model, table) in onnx_of.items():
            built = build(
                opened, model, table, options=options, gpu=target, timings=timings, title=role
            )
            (fresh / f"{role}.plan").write_bytes(built.content)
            digest = hashlib.sha256(built.content).hexdigest()
            files[role], layers[role] = File(digest, len(built.content)), built.layers
        made_of = plans.made_of(engine, options.precision)
        done = Plans(place, library, opened.version, target, options, made_of, files, layers)
        (fresh / plans.RECORD).write_text(plans.record(done), encoding="utf-8")
    return plans.load(place)


def target_of(library: str, gpu: str | None) -> str:
    """What plans are built for: see `write`, whose errors it raises."""
    if library == "tensorrt":
        if gpu is not None:
            raise InputError(
                f"--gpu must go with tensorrt-rtx, got {gpu!r}: TensorRT builds for the GPU here"
            )
        device = cuda_runtime.load().device()
        return plans.gpus(library, device.capability, device.name)[0]
    if gpu not in (None, plans.PORTABLE, *plans.RTX_TARGETS):
        raise InputError(
            f"gpu must be {plans.PORTABLE} or one of {plans.RTX_TARGETS}, got {gpu!r}: "
            "TensorRT-RTX builds for no other"
        )
    return gpu or plans.PORTABLE


def graphs(engine: Engine, precision: str) -> dict[str, tuple[onnx.ModelProto, tensors.Graph]]:
    """Both graphs as plans have them, with their inputs and outputs.

    Raises:
        InputError: The engine has no such precision.
        EngineError: A file is missing or changed.
    """
    found = {}
    for role, file in plans.sources(engine, precision).items():
        model, table = half_weights.widened(engine.read(file)), getattr(engine.tables, role)
        if role == "decoder":
            model, table = device_decoder.rewrite(model, table), plans.decoder_table(table)
        if precision in ("fp16", "bf16"):
            model = half.rewrite(model, "fp16" if precision == "fp16" else "bf16")
        found[role] = model, table
    return found


def build(
    library: Library,
    model: onnx.ModelProto,
    table: tensors.Graph,
    *,
    options: Options,
    gpu: str,
    timings: Path | None = None,
    title: str = "plan",
) -> Built:
    """One plan.

    Args:
        library: What builds it.
        model: The graph, whose types are those that are computed in.
        table: Its inputs and outputs.
        options: The ranges of B and k.
        gpu: As in `Plans`.
        timings: Where TensorRT keeps what it timed; TensorRT-RTX times nothing ahead.
        title: What the progress bar says.

    Raises:
        EngineError: The library does not take the graph.
    """
    trt = library.module
    builder = trt.Builder(library.logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        told = "; ".join(f"{one.node_operator()} {one.node_name()}: {one.desc()}" for one in errors)
        raise EngineError(f"{library.name} does not parse the {title}: {told}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    _add_ranges(builder, config, table, options)
    if library.name == "tensorrt-rtx" and gpu != plans.PORTABLE:
        config.num_compute_capabilities = 1
        capability = getattr(trt.ComputeCapability, gpu.upper())
        if not config.set_compute_capability(capability, 0):
            raise EngineError(f"{library.name} does not build for {gpu}: {library.why()}")
    cache = _open_timings(config, timings) if library.name == "tensorrt" else None
    layers = network.num_layers
    with BuildProgress(trt, title) as monitor:
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{library.name} does not build the {title} for {gpu} in {options.precision}: "
            f"{library.why()}"
        )
    if cache is not None and timings is not None:
        with atomic.file(timings) as fresh:
            fresh.write_bytes(bytes(config.get_timing_cache().serialize()))
    return Built(bytes(plan), layers)


def _add_ranges(builder: Any, config: Any, table: tensors.Graph, options: Options) -> None:
    profile = builder.create_optimization_profile()
    for tensor in table.inputs:
        profile.set_shape(tensor.name, *plans.ranges(tensor, options))
    config.add_optimization_profile(profile)


def _open_timings(config: Any, timings: Path | None) -> Any:
    """What was timed before on such a GPU, so that a second build takes seconds."""
    known = timings.read_bytes() if timings is not None and timings.exists() else b""
    cache = config.create_timing_cache(known)
    if not config.set_timing_cache(cache, False):
        raise EngineError(f"{timings} is of another GPU or version; delete it")
    return cache
