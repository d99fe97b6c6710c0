"""The graphs of a model directory: which are made for the precisions asked for, and how they share their weights.

For target cpu, fp32 gives model.onnx, for any runtime, and two of a few kilobytes that refer to the weights inside it:
model.native.fp32.onnx for our own operators and model.cpu.fp32.onnx for stock ones. bf16 gives model.native.bf16.onnx
for our own operators, with its weights beside it; int8 gives model.cpu.int8.onnx, which stands alone, and
model.native.int8.onnx, which refers to its weights. cuda and tensorrt give one graph a precision, with weights of its
own; fp16 and bf16 for cuda also one with our own operators, which refers to them; fp8 has that one alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastembed_rt import native as own
from fastembed_rt.manifest import Variant
from fastembed_rt.precisions import PRECISIONS, listed, targets_for, unknown

from ..errors import InvalidInputError, UnsupportedCheckpointError
from ..gate.refusals import REFUSES, Key, Refusals, new_files
from ..graph import cuda, cuda_native, native, native_floats, tensorrt
from ..graph.cpu import CPU
from ..graph.portable import DEFAULT_OPSET, PORTABLE
from ..graph.target import Target
from ..graph.writer import Written
from .calibrated import fp8_graphs, int8_graphs
from .wanted import BF16, PLAINEST, Build, Built, Say, Wanted, token_graph, tokens_written, variant_of, written_as

MODEL_FILE = "model.onnx"
GPU_TARGETS: dict[str, Callable[[str], Target]] = {"cuda": cuda.target, "tensorrt": tensorrt.target}  # by precision
# "1": graphs of target cuda-native have our own attention, which no card has run yet, instead of onnxruntime's.
OWN_ATTENTION = "FASTEMBED_RT_CUDA_ATTENTION"


@dataclass(frozen=True, kw_only=True)
class Made:
    """The variants, the default first."""

    variants: tuple[Variant, ...]
    dim: int
    beside: tuple[str, ...]
    reach: int | None = None  # see Ops.reach


def default_precision(targets: Sequence[str]) -> str:
    """What is made when no precision is asked for."""
    return "fp32" if "cpu" in targets else "fp16"


def check(targets: Sequence[str], precisions: Sequence[str]) -> None:
    """Raise InvalidInputError for a target or precision that is not made, or made twice."""
    if not targets or not set(targets) <= set(PRECISIONS) or len(set(targets)) != len(targets):
        raise InvalidInputError(
            f"target {','.join(targets)!r} is not possible; choose from {', '.join(PRECISIONS)}, each once"
        )
    possible = list(dict.fromkeys(precision for target in targets for precision in PRECISIONS[target]))
    asked, chosen = f"precision {','.join(precisions)!r}", ", ".join(targets)
    for precision in precisions:
        if reason := unknown(precision):
            raise InvalidInputError(f"{reason}, of which target {chosen} has {listed(possible)}")
        if precision not in possible:
            raise InvalidInputError(
                f"{asked} is not possible for target {chosen}; choose from {', '.join(possible)}, each once, or add "
                f"--target {listed(targets_for(precision), 'or')} for {precision}"
            )
    if not precisions or len(set(precisions)) != len(precisions):
        raise InvalidInputError(f"{asked} is not possible; choose from {', '.join(possible)}, each once")
    idle = [target for target in targets if not set(precisions) & set(PRECISIONS[target])]
    if idle:
        raise InvalidInputError(
            f"target {idle[0]!r} has {', '.join(PRECISIONS[idle[0]])}, not {', '.join(precisions)}; add one of them"
        )


def make(build: Build, work: Path, wanted: Wanted, refusals: Refusals) -> Made:
    """Write the graphs of all targets and precisions into `work`.

    What does not pass goes to `refusals`, and what is there is not made.

    Raises:
        ParityError, UnsupportedCheckpointError: nothing passes.
    """
    found: dict[Key, list[Variant]] = {}
    built: Built | None = None
    keys = [key for key in wanted.keys if key not in refusals.errors]
    for target, precision in keys:
        before = list(work.iterdir())
        try:
            if precision == "fp8":
                made, variants = fp8_graphs(build, work, wanted, refusals.say)
            elif target != "cpu":
                made, variants = _gpu(build, work, wanted, refusals.say, target, precision)
            else:
                maker = {"fp32": _fp32, "bf16": _bf16, "int8": int8_graphs}[precision]
                made, variants = maker(build, work, wanted, refusals.say)
        except REFUSES as error:
            # The plainest graph that there is: what it lacks, all lack.
            if len(keys) == 1 or (isinstance(error, UnsupportedCheckpointError) and (target, precision) == PLAINEST):
                raise
            refusals.add((target, precision), error)
            for file in new_files(work, before):
                file.unlink()
        else:
            built, found[target, precision] = built or made, variants
    if built is None:
        raise refusals.nothing_left()
    order = [(target, precision) for precision in wanted.precisions for target in wanted.targets]
    ordered = [variant for key in order for variant in found.get(key, ())]
    return Made(variants=tuple(ordered), dim=built.dim, beside=built.beside, reach=built.reach)


def _gpu(
    build: Build, work: Path, wanted: Wanted, say: Say, target_name: str, precision: str
) -> tuple[Built, list[Variant]]:
    if not wanted.cpu:
        raise UnsupportedCheckpointError(
            f"graphs for {target_name} are built from weights and this model_type has no builder; leave --target out"
        )
    target = GPU_TARGETS[target_name](precision)
    if wanted.tokens is not None:
        say(f"no token states for target {target_name}: they are made for cpu")
    built = build(target, target.opset or DEFAULT_OPSET)
    if target_name == "cuda" and all(entry.name != cuda.BOUNDARIES for entry in built.graph.inputs):
        raise UnsupportedCheckpointError(
            "target cuda runs encoders with attention, and this is a table of token vectors, which a CPU looks up "
            "faster than a GPU is asked; leave --target out"
        )
    key = (target_name, precision)
    written = written_as(key, built.graph, work, f"model.{target_name}.{precision}.onnx", wanted, say)
    made = [variant_of(wanted, work, built.graph, written, target, precision)]
    if target_name == "cuda" and precision in cuda_native.TYPES:
        made = [*_with_own_operators(key, build, work, wanted, say, written), *made]
    return built, made


def _with_own_operators(key: Key, build: Build, work: Path, wanted: Wanted, say: Say, beside: Written) -> list[Variant]:
    """The graph for CUDA with our own operators, on the weights of the one beside it; none where it has none."""
    own_attention = os.environ.get(OWN_ATTENTION) == "1"
    target, precision = cuda_native.target(key[1], own_attention=own_attention), key[1]
    graph = build(target, target.opset or DEFAULT_OPSET).graph
    if own_attention:  # without what onnxruntime's would have been given
        graph = graph.ending_in([entry.name for entry in graph.outputs])
    if not cuda_native.uses_them(graph):
        return []
    file = f"model.{target.name}.{precision}.onnx"
    say(f"writing {file}: {len(graph.nodes)} nodes")
    written = wanted.write(key, graph, work, file, beside.offsets)
    return [variant_of(wanted, work, graph, written, target, precision)]


def _fp32(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    portable = wanted.finish(build(PORTABLE, wanted.opset))
    written = written_as(PLAINEST, portable.graph, work, MODEL_FILE, wanted, say)
    states = token_graph(PLAINEST, PORTABLE, wanted.opset, work, MODEL_FILE, written, wanted)
    found = [variant_of(wanted, work, portable.graph, written, PORTABLE, "fp32", tokens=states)]
    if wanted.cpu:
        graph = build(CPU, CPU.opset or DEFAULT_OPSET).graph
        file = "model.cpu.fp32.onnx"
        # The same weights under the same names: they are read where model.onnx has them.
        again = wanted.write(PLAINEST, graph, work, file, written.offsets)
        states = token_graph(PLAINEST, CPU, CPU.opset or DEFAULT_OPSET, work, file, written, wanted)
        found.insert(0, variant_of(wanted, work, graph, again, CPU, "fp32", tokens=states))
        found = [*_with_native(build, work, wanted, say, written), *found]
    return portable, found


def _with_native(build: Build, work: Path, wanted: Wanted, say: Say, beside: Written) -> list[Variant]:
    """The graph with our own operators on the weights beside it; none where it lacks something or does not run."""
    if own.kernels() is None:
        say(f"no graph for target native: {own.why_not()}")
        return []
    target, file = native_floats.target("fp32"), "model.native.fp32.onnx"
    opset = target.opset or DEFAULT_OPSET
    try:
        graph = build(target, opset).graph
    except native.NotNativeError as error:
        say(f"no graph for target native: {error}")
        return []
    say(f"writing {file}: {len(graph.nodes)} nodes")
    written = wanted.write(PLAINEST, graph, work, file, beside.offsets)
    states = None
    if wanted.tokens is not None:
        offsets = {**beside.offsets, **written.offsets}
        states = tokens_written(PLAINEST, wanted.tokens.build(target, opset), work, file, offsets, wanted)
    return [variant_of(wanted, work, graph, written, target, "fp32", tokens=states)]


def _bf16(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    """The graph with our own operators: stock ones have no bfloat16 products on CPUs."""
    if not wanted.cpu:
        raise UnsupportedCheckpointError(
            "bf16 graphs for CPUs are built from weights and this model_type has no builder; take fp32 or int8"
        )
    target, file = native_floats.target("bf16"), "model.native.bf16.onnx"
    opset = target.opset or DEFAULT_OPSET
    try:
        built = build(target, opset)
    except native.NotNativeError as error:
        raise UnsupportedCheckpointError(
            f"bf16 on CPUs is computed by our own operators, which lack what this encoder needs: {error}; take fp32"
        ) from error
    # Beside the graph, where a runtime maps the weights that it would copy otherwise.
    written = written_as(BF16, built.graph, work, file, wanted, say, external=True)
    states = token_graph(BF16, target, opset, work, file, written, wanted)
    return built, [variant_of(wanted, work, built.graph, written, target, "bf16", tokens=states)]
