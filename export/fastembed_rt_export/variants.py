"""The graphs of a model directory: which are made for the precisions asked for, and how they share their weights.

For target cpu, fp32 gives model.onnx, for any runtime, and model.cpu.fp32.onnx, a few kilobytes that refer to the
weights inside model.onnx; bf16 gives model.native.bf16.onnx for our own operators, with its weights beside it; int8
gives model.cpu.int8.onnx, which stands alone, and model.native.int8.onnx, which refers to its weights. cuda and
tensorrt give one graph a precision, with weights of its own; fp16 and bf16 for cuda also one with our own operators,
which refers to them; fp8 has that one alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastembed_rt import native
from fastembed_rt.machine import available_threads
from fastembed_rt.manifest import TokenGraph, Variant, record_file
from fastembed_rt.precisions import PRECISIONS, listed, targets_for, unknown
from fastembed_rt.system.progress import progress
from fastembed_rt.system.sizes import readable
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt.vectors.dense import Vectors

from . import quantize
from .errors import InvalidInputError, UnsupportedCheckpointError
from .gate.long_texts import REPEATED, Reach, between, filled
from .gate.parity import Fidelity, parity_texts
from .gate.refusals import REFUSES, Key, Refusals, new_files
from .graph import bf16, cuda, cuda_native, fp8, int8, tensorrt
from .graph import native as native_int8
from .graph.common import Common, Place
from .graph.cpu import CPU
from .graph.graph import Graph
from .graph.portable import DEFAULT_OPSET, PORTABLE
from .graph.target import Target
from .graph.writer import Written, write

MODEL_FILE = "model.onnx"
GPU_TARGETS: dict[str, Callable[[str], Target]] = {"cuda": cuda.target, "tensorrt": tensorrt.target}  # by precision
PLAINEST, INT8 = ("cpu", "fp32"), ("cpu", "int8")
# Of the texts that int8 is measured on, tokens of those that all are, and one in how many of the longer ones is.
SHORT, LONGER = 64, 3


# "1": graphs of target cuda-native have our own attention, which no card has run yet, instead of onnxruntime's.
OWN_ATTENTION = "FASTEMBED_RT_CUDA_ATTENTION"


@dataclass(frozen=True)
class Built:
    """A graph, the length of its vectors, and the checkpoint's tensors that it leaves out."""

    graph: Graph
    dim: int
    beside: tuple[str, ...]
    states: str | None = None  # of the graph's values the token states, where they may be an output too
    width: int = 0  # of a token state


@dataclass(frozen=True, kw_only=True)
class Quantizing:
    """What int8 asks of a task."""

    sample: Callable[[TextTokenizer, Sequence[str]], quantize.Sample]  # texts as the task's graphs take them
    fidelity: Callable[[Vectors, Vectors], Fidelity] = Fidelity.of  # outputs for them beside those expected
    inputs: str = "texts"  # what messages call that which is measured
    outputs: str = "vectors"  # and what comes of it
    means: bool = False  # of states of tokens, in which errors that are not alike average out


Build = Callable[[Target, int], Built]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TokenStates:
    """How graphs of an encoder alone are made."""

    build: Build
    no_int8: str  # why there is none in int8; "": there is
    no_spans: str  # of TokenGraph


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the variants depend on."""

    targets: tuple[str, ...]  # of PRECISIONS
    precisions: tuple[str, ...]
    opset: int
    external_data: bool
    cpu: bool  # False: traced graphs have no target of their own
    name: str
    metadata: Mapping[str, str]
    max_length: int
    calibration: Path | None
    min_cosine: float
    task: Quantizing
    reach: Reach  # how long the texts are that the gate compares
    finish: Callable[[Built], Built] = lambda built: built  # what the layout adds to model.onnx
    tokens: TokenStates | None = None  # None: no graphs of token states
    tokenizer: Path  # tokenizer.json
    prefix: str = ""  # of the files' names, where a directory has graphs of several encoders
    common: Mapping[Key, Common] | None = None  # what graphs of several encoders share; None: there is one
    show_progress: bool = False

    def texts(self, tokenizer: TextTokenizer) -> list[str]:
        """Texts like those that the gate compares: what repeats, what is short, and a share of all others."""

        def count(text: str) -> int:
            return int(tokenizer.count([text])[0])

        share = quantize.share_of(self.reach.per_token)
        reach = replace(self.reach, repeated=int(share * self.reach.repeated))
        cases = [*parity_texts(), *between(reach, count)]
        counts = tokenizer.count([case.text for case in cases])
        all_of = [case for case, tokens in zip(cases, counts, strict=True) if case.kind == REPEATED or tokens <= SHORT]
        longer = [case for case in cases if case not in all_of]
        return [
            *(case.text for case in [*all_of, *longer[:: round(LONGER / share)]]),
            filled(self.reach.longest, count),
        ]

    def write(
        self, key: Key, graph: Graph, work: Path, file: str, shared: Mapping[str, Place] | None = None
    ) -> Written:
        """A graph into `work`; `shared`: weights that lie there already. One that refers to some has none beside it."""
        return write(
            graph,
            work,
            f"{self.prefix}{file}",
            name=self.name,
            metadata=self.metadata,
            external=self.external_data and shared is None,
            shared=shared,
            common=None if self.common is None else self.common[key],
        )

    @property
    def keys(self) -> list[Key]:
        """What is to be made, in the table's order: int8 and the calibration behind it last."""
        return [
            (target, precision)
            for target, possible in PRECISIONS.items()
            for precision in possible
            if target in self.targets and precision in self.precisions
        ]


@dataclass(frozen=True, kw_only=True)
class Made:
    """The variants, the default first."""

    variants: tuple[Variant, ...]
    dim: int
    beside: tuple[str, ...]


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
            raise InvalidInputError(f"{asked}: {reason}, of which target {chosen} has {listed(possible)}")
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
                made, variants = _fp8(build, work, wanted, refusals.say)
            elif target != "cpu":
                made, variants = _gpu(build, work, wanted, refusals.say, target, precision)
            else:
                maker = {"fp32": _fp32, "bf16": _bf16, "int8": _int8}[precision]
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
    return Made(variants=tuple(ordered), dim=built.dim, beside=built.beside)


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
    written = _write(key, built.graph, work, f"model.{target_name}.{precision}.onnx", wanted, say)
    made = [_variant(work, built.graph, written, target, precision)]
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
    return [_variant(work, graph, written, target, precision)]


def _fp32(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    portable = wanted.finish(build(PORTABLE, wanted.opset))
    written = _write(PLAINEST, portable.graph, work, MODEL_FILE, wanted, say)
    states = _token_graph(PORTABLE, wanted.opset, work, MODEL_FILE, written, wanted)
    found = [_variant(work, portable.graph, written, PORTABLE, "fp32", tokens=states)]
    if wanted.cpu:
        graph = build(CPU, CPU.opset or DEFAULT_OPSET).graph
        file = "model.cpu.fp32.onnx"
        # The same weights under the same names: they are read where model.onnx has them.
        again = wanted.write(PLAINEST, graph, work, file, written.offsets)
        states = _token_graph(CPU, CPU.opset or DEFAULT_OPSET, work, file, written, wanted)
        found.insert(0, _variant(work, graph, again, CPU, "fp32", tokens=states))
    return portable, found


def _bf16(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    """The graph with our own operators: stock ones have no bfloat16 products on CPUs."""
    if not wanted.cpu:
        raise UnsupportedCheckpointError(
            "bf16 graphs for CPUs are built from weights and this model_type has no builder; take fp32 or int8"
        )
    target, file = bf16.target(), "model.native.bf16.onnx"
    opset = target.opset or DEFAULT_OPSET
    try:
        built = build(target, opset)
    except native_int8.NotNativeError as error:
        raise UnsupportedCheckpointError(
            f"bf16 on CPUs is computed by our own operators, which lack what this encoder needs: {error}; take fp32"
        ) from error
    say(f"writing {file}: {len(built.graph.nodes)} nodes, {readable(built.graph.weight_bytes)}")
    # Beside the graph, where a runtime maps the weights that it would copy otherwise.
    written = write(built.graph, work, file, name=wanted.name, metadata=wanted.metadata, external=True)
    states = _token_graph(target, opset, work, file, written, wanted)
    return built, [_variant(work, built.graph, written, target, "bf16", tokens=states)]


def _int8(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    """The stock graph, and the one with our own operators on its weights; each has what it needs of float layers."""
    sample, held_out, rare = _samples(wanted, "int8", say)
    base = CPU if wanted.cpu else PORTABLE
    opset = base.opset or wanted.opset
    with progress(1000, wanted.show_progress, unit="/1000", what="calibrating int8") as bar:
        found = quantize.calibrate(
            lambda target: build(target, opset).graph,
            sample,
            held_out,
            available_threads(),
            base,
            bar.update,
            quantize.share_of(wanted.reach.per_token),
            dither=wanted.task.means,
            rare=rare,
        )
    say(f"calibrated int8: {len(found.errors)} groups of layers")
    found = replace(found, recipe=replace(found.recipe, embedding=wanted.cpu))
    notes = {
        "calibration": _calibrated_on(sample),
        "embedding": "int8" if wanted.cpu else "fp32",
        "largest_output_error": round(max(found.errors.values(), default=0.0), 4),
    }

    def stock(recipe: int8.Recipe, build: Build = build) -> Built:
        made = build(int8.target(recipe, base), opset)
        int8.unsigned_where_shared(made.graph)
        return made

    def ours(recipe: int8.Recipe) -> Graph:
        target = native_int8.target(recipe)
        return build(target, target.opset or DEFAULT_OPSET).graph

    states = wanted.tokens
    if states is not None and states.no_int8:
        say(f"no token states in int8: {states.no_int8}")
        states = None

    fitting = quantize.Fitting(held_out, work, wanted.min_cosine, wanted.task.fidelity, wanted.task.outputs, say)
    recipe, figures = fitting.passing(found, lambda tried: stock(tried).graph, "of stock operators")
    built = stock(recipe)
    written = _write(INT8, built.graph, work, "model.cpu.int8.onnx", wanted, say)
    target, alone = int8.target(recipe, base), None
    if states is not None:
        of_stock = stock(recipe, states.build)
        alone = _write_tokens(INT8, of_stock, work, "model.cpu.int8.onnx", written.offsets, wanted)
    made = [_variant(work, built.graph, written, target, "int8", {**figures, **notes}, alone)]
    if not wanted.cpu:
        return built, made
    if native.kernels() is None:
        say(f"no graph for target native: {native.why_not()}")
        return built, made
    found = replace(found, by_text={**found.by_text, **found.by_text_of_tails})
    try:
        recipe, figures = fitting.passing(found, ours, "of our own operators")
    except native_int8.NotNativeError as error:
        say(f"no graph for target native: {error}")
        return built, made
    graph, file = ours(recipe), "model.native.int8.onnx"
    say(f"writing {file}: {len(graph.nodes)} nodes")
    shared = wanted.write(INT8, graph, work, file, written.offsets)
    target = native_int8.target(recipe)
    if states is not None:
        of_ours = states.build(target, target.opset or DEFAULT_OPSET)
        alone = _write_tokens(INT8, of_ours, work, file, {**written.offsets, **shared.offsets}, wanted)
    made.insert(0, _variant(work, graph, shared, target, "int8", {**figures, **notes}, alone))
    return built, made


def _samples(
    wanted: Wanted, precision: str, say: Say
) -> tuple[quantize.Sample, quantize.Sample, quantize.Sample | None]:
    """Texts to calibrate on, to measure on, and to widen ranges alone, if the model is small."""
    tokenizer = TextTokenizer(wanted.tokenizer, max_length=wanted.max_length)
    texts = quantize.chosen_texts(
        wanted.calibration,
        wanted.max_length,
        lambda given: tokenizer.count(given).tolist(),
        wanted.reach.per_token,
    )
    sample = wanted.task.sample(tokenizer, texts)
    say(f"calibrating {precision} on {len(texts)} texts, {int(sample.lengths.sum())} tokens")
    words = json.loads(wanted.tokenizer.read_text(encoding="utf-8"))["model"].get("vocab", ())
    rare = quantize.rare_texts((word if isinstance(word, str) else word[0] for word in words), wanted.reach.per_token)
    held_out = wanted.task.sample(tokenizer, wanted.texts(tokenizer))
    return sample, held_out, wanted.task.sample(tokenizer, rare) if rare else None


def _calibrated_on(sample: quantize.Sample) -> dict[str, int]:
    return {"texts": len(sample.rows), "tokens": int(sample.lengths.sum()), "seed": quantize.SEED}


def _fp8(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    """The graph for CUDA with our own operators, measured in a graph of floats that computes what the card will."""
    if not wanted.cpu:
        raise UnsupportedCheckpointError(
            "fp8 graphs are built from weights and this model_type has no builder; leave fp8 out"
        )
    if wanted.tokens is not None:
        say("no token states in fp8: they are made for cpu")
    sample, held_out, _ = _samples(wanted, "fp8", say)
    opset = CPU.opset or DEFAULT_OPSET
    share = quantize.share_of(wanted.reach.per_token)
    found = quantize.fp8.calibrate(
        lambda target: build(target, target.opset or opset).graph, sample, held_out, available_threads(), share
    )
    say(f"calibrated fp8: {len(found.errors)} groups of layers")

    def fidelity(vectors: Vectors, expected: Vectors) -> Fidelity:
        return quantize.fp8.Near(**vars(wanted.task.fidelity(vectors, expected)))

    fitting = quantize.Fitting(
        held_out, work, quantize.fp8.WORST, fidelity, wanted.task.outputs, say, quantize.fp8.ADVICE
    )
    recipe, figures = fitting.passing(
        found,
        lambda tried: build(fp8.simulated(tried), opset).graph,
        "as simulated on the CPU",
        "fp8",
        quantize.fp8.passing,
    )
    target, key = fp8.target(recipe), ("cuda", "fp8")
    built = build(target, target.opset or DEFAULT_OPSET)
    written = _write(key, built.graph, work, f"model.{target.name}.fp8.onnx", wanted, say)
    notes = {
        **figures,
        "calibration": _calibrated_on(sample),
        "largest_output_error": round(max(found.errors.values(), default=0.0), 4),
    }
    return built, [_variant(work, built.graph, written, target, "fp8", notes)]


def _token_graph(
    target: Target, opset: int, work: Path, beside: str, written: Written, wanted: Wanted
) -> TokenGraph | None:
    """The encoder alone, on the weights of the graph `beside`; None where nobody asked for it."""
    if wanted.tokens is None:
        return None
    return _write_tokens(PLAINEST, wanted.tokens.build(target, opset), work, beside, written.offsets, wanted)


def _write_tokens(
    key: Key, built: Built, work: Path, beside: str, offsets: Mapping[str, Place], wanted: Wanted
) -> TokenGraph:
    assert wanted.tokens is not None
    file = f"{beside.removesuffix('.onnx')}.tokens.onnx"
    written = wanted.write(key, built.graph, work, file, offsets)
    return TokenGraph(
        graph=record_file(work, written.graph),
        weights=tuple(record_file(work, name) for name in written.weights),
        opset=built.graph.opset,
        inputs=tuple(value.name for value in built.graph.inputs),
        dim=built.dim,
        no_spans=wanted.tokens.no_spans,
    )


def _write(key: Key, graph: Graph, work: Path, file: str, wanted: Wanted, say: Say) -> Written:
    say(f"writing {file}: {len(graph.nodes)} nodes, {readable(graph.weight_bytes)}")
    return wanted.write(key, graph, work, file)


def _variant(
    work: Path,
    graph: Graph,
    written: Written,
    target: Target,
    precision: str,
    notes: Mapping[str, Any] | None = None,
    tokens: TokenGraph | None = None,
) -> Variant:
    return Variant(
        graph=record_file(work, written.graph),
        weights=tuple(record_file(work, file) for file in written.weights),
        target=target.name,
        precision=precision,
        opset=graph.opset,
        inputs=tuple(value.name for value in graph.inputs),
        notes=notes or {},
        tokens=tokens,
    )
