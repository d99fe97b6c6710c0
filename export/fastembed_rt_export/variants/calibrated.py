"""Graphs whose numbers come from texts: calibrated, measured beside float32, given back what they need of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from fastembed_rt import native
from fastembed_rt.machine import available_threads
from fastembed_rt.manifest import Variant
from fastembed_rt.run import memory
from fastembed_rt.system.progress import progress
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt.vectors.dense import Vectors

from .. import quantize
from ..errors import UnsupportedCheckpointError
from ..gate.parity import Fidelity
from ..graph import fp8, int8
from ..graph import native as native_int8
from ..graph.cpu import CPU
from ..graph.graph import Graph
from ..graph.portable import DEFAULT_OPSET, PORTABLE
from .wanted import INT8, Build, Built, Say, Wanted, tokens_written, variant_of, written_as


def int8_graphs(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    """The stock graph, and the one with our own operators on its weights; each has what it needs of float layers."""
    sample, held_out, rare = _samples(wanted, "int8", say)
    memory.give_back()  # what a tokenizer took to be made
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

    fitting = quantize.Fitting(
        held_out=held_out,
        work=work,
        bound=wanted.min_cosine,
        fidelity=wanted.task.fidelity,
        outputs=wanted.task.outputs,
        say=say,
    )
    recipe, figures = fitting.passing(found, lambda tried: stock(tried).graph, "of stock operators")
    built = stock(recipe)
    written = written_as(INT8, built.graph, work, "model.cpu.int8.onnx", wanted, say)
    target, alone = int8.target(recipe, base), None
    if states is not None:
        of_stock = stock(recipe, states.build)
        alone = tokens_written(INT8, of_stock, work, "model.cpu.int8.onnx", written.offsets, wanted)
    made = [variant_of(wanted, work, built.graph, written, target, "int8", {**figures, **notes}, alone)]
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
        alone = tokens_written(INT8, of_ours, work, file, {**written.offsets, **shared.offsets}, wanted)
    made.insert(0, variant_of(wanted, work, graph, shared, target, "int8", {**figures, **notes}, alone))
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
    sample = wanted.task.sample(tokenizer, texts).of_tokens
    say(f"calibrating {precision} on {len(texts)} texts, {int(sample.lengths.sum())} tokens")
    words = json.loads(wanted.tokenizer.read_text(encoding="utf-8"))["model"].get("vocab", ())
    rare = quantize.rare_texts((word if isinstance(word, str) else word[0] for word in words), wanted.reach.per_token)
    held_out = wanted.task.sample(tokenizer, wanted.texts(tokenizer)).of_tokens
    words_alone = wanted.task.sample(tokenizer, rare).of_tokens if rare else None
    return sample, held_out, words_alone if words_alone is not None and words_alone.rows else None


def _calibrated_on(sample: quantize.Sample) -> dict[str, int]:
    return {"texts": len(sample.rows), "tokens": int(sample.lengths.sum()), "seed": quantize.SEED}


def fp8_graphs(build: Build, work: Path, wanted: Wanted, say: Say) -> tuple[Built, list[Variant]]:
    """The graph for CUDA with our own operators, measured in a graph of floats that computes what the card will."""
    if not wanted.cpu:
        raise UnsupportedCheckpointError(
            "fp8 graphs are built from weights and this model_type has no builder; leave fp8 out"
        )
    if wanted.tokens is not None:
        say("no token states in fp8: they are made for cpu")
    sample, held_out, rare = _samples(wanted, "fp8", say)
    opset = CPU.opset or DEFAULT_OPSET
    share = quantize.share_of(wanted.reach.per_token)
    found = quantize.fp8.calibrate(
        lambda target: build(target, target.opset or opset).graph, sample, held_out, available_threads(), share, rare
    )
    say(f"calibrated fp8: {len(found.errors)} groups of layers")

    def fidelity(vectors: Vectors, expected: Vectors) -> Fidelity:
        return quantize.fp8.Near(**vars(wanted.task.fidelity(vectors, expected)))

    fitting = quantize.Fitting(
        held_out=held_out,
        work=work,
        bound=quantize.fp8.WORST,
        fidelity=fidelity,
        outputs=wanted.task.outputs,
        say=say,
        precision="fp8",
        fall_back=quantize.fp8.passing,
        advice=quantize.fp8.ADVICE,
    )
    recipe, figures = fitting.passing(
        found, lambda tried: build(fp8.simulated(tried), opset).graph, "as simulated on the CPU"
    )
    target, key = fp8.target(recipe), ("cuda", "fp8")
    built = build(target, target.opset or DEFAULT_OPSET)
    written = written_as(key, built.graph, work, f"model.{target.name}.fp8.onnx", wanted, say)
    notes = {
        **figures,
        "calibration": _calibrated_on(sample),
        "largest_output_error": round(max(found.errors.values(), default=0.0), 4),
    }
    return built, [variant_of(wanted, work, built.graph, written, target, "fp8", notes)]
