"""Who is compared where a model is no encoder of sentences: a table of contenders for each kind of model.

A kind is a task of the manifest, or STATIC: an embedder that is a table of vectors of words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fastembed_rt.manifest import EMBEDDING, LATE_INTERACTION, RERANKING, SPARSE, Manifest

from . import contenders
from .contenders import TABLE, Contender

STATIC = "static"
PARTS = ("cold", "throughput", "latency")  # that other kinds than sentence encoders have texts for


def _sentence_transformers(*, onnx: bool) -> tuple[Contender, ...]:
    """sentence-transformers' own classes on each of its backends."""
    adapter = "sentence_transformers_heads"
    rows = [
        Contender(
            name="st-torch",
            title="sentence-transformers, torch fp32",
            environment="sentence-transformers",
            adapter=adapter,
            options={"backend": "torch", "dtype": "float32"},
        ),
        Contender(
            name="st-torch-bf16",
            title="sentence-transformers, torch bf16",
            environment="sentence-transformers",
            adapter=adapter,
            options={"backend": "torch", "dtype": "bfloat16"},
            arithmetic="bf16",
        ),
        Contender(
            name="st-onnx",
            title="sentence-transformers, ONNX fp32",
            environment="sentence-transformers-onnx",
            adapter=adapter,
            options={"backend": "onnx"},
        ),
        Contender(
            name="st-onnx-int8",
            title="sentence-transformers, ONNX INT8 (its preset)",
            environment="sentence-transformers-onnx",
            adapter=adapter,
            options={"backend": "onnx", "quantize": "dynamic"},
            arithmetic="int8",
        ),
        Contender(
            name="st-openvino",
            title="sentence-transformers, OpenVINO (its default)",
            environment="sentence-transformers-openvino",
            adapter=adapter,
            options={"backend": "openvino"},
        ),
        Contender(
            name="st-openvino-int8",
            title="sentence-transformers, OpenVINO INT8 (static, NNCF)",
            environment="sentence-transformers-openvino",
            adapter=adapter,
            options={"backend": "openvino", "quantize": "static"},
            arithmetic="int8",
        ),
    ]
    # The version with ONNX has no class for late interaction.
    return tuple(row for row in rows if onnx or row.options["backend"] != "onnx")


FASTEMBED = Contender(
    name="fastembed",
    title="fastembed, same fp32 ONNX",
    environment="fastembed",
    adapter="fastembed_heads",
    precision="fp32",
)
SPARSE_FASTEMBED = replace(FASTEMBED, converter="sentence-transformers-onnx")  # by optimum
FLASHRANK = Contender(
    name="flashrank",
    title="FlashRank, same fp32 ONNX",
    environment="flashrank",
    adapter="flashrank",
    precision="fp32",
)
MODEL2VEC = Contender(name="model2vec", title="model2vec", environment="model2vec", adapter="model2vec")
OURS = tuple(
    Contender(
        name=f"rt-{precision}",
        title=f"fastembed-rt {'INT8' if precision == 'int8' else precision}",
        environment="fastembed-rt",
        adapter="fastembed_rt_heads",
        options={"precision": precision},
        precision=precision,
        arithmetic=precision,
        ours=True,
    )
    for precision in ("fp32", "bf16", "int8")
)
STATIC_NAMES = ("st-torch", "rt-fp32", "rt-bf16", "rt-int8")  # rows of sentence encoders that take a table too

TABLES: Mapping[str, tuple[Contender, ...]] = {
    EMBEDDING: TABLE,
    STATIC: (*(row for row in TABLE if row.name in STATIC_NAMES), MODEL2VEC),
    RERANKING: (*_sentence_transformers(onnx=True), FASTEMBED, FLASHRANK, *OURS),
    SPARSE: (*_sentence_transformers(onnx=True), SPARSE_FASTEMBED, *OURS),
    LATE_INTERACTION: (*_sentence_transformers(onnx=False), FASTEMBED, *OURS),
}


def kind(model: Manifest) -> str:
    """Which table a model is compared by."""
    return STATIC if model.source.model_type == STATIC else model.task


def named(kind: str, names: Iterable[str]) -> list[Contender]:
    """Rows of a kind's table by name, in its order; the reference always among them.

    Raises:
        BenchmarkError: a name that is not in the table.
    """
    return contenders.chosen(TABLES[kind], set(names))
